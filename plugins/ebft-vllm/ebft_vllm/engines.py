"""Starts the engine that a recipe asks for, or connects to it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ebft.errors import FailedElsewhereError, UserError
from ebft.models.lora import ADAPTER_NAME, has_adapter
from ebft.models.shape import context_length
from ebft.parts.part import Resources
from ebft_vllm.available import require_vllm
from ebft_vllm.channel import Address, read_token
from ebft_vllm.identity import identity
from ebft_vllm.in_process import InProcessEngine
from ebft_vllm.messages import Engine, Start
from ebft_vllm.options import VllmOptions
from ebft_vllm.own_process import OwnProcessEngine
from ebft_vllm.remote import RemoteEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel


RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks that vLLM has kernels for."""


class Started(NamedTuple):
    """An engine, the most tokens of a context with its rollout (None: no limit), and the tokens of
    a block of its KV cache."""

    engine: Engine
    limit: int | None
    block_size: int


def start_engine(options: VllmOptions, resources: Resources, dtype: str) -> Started:
    """Starts an engine with random weights, or connects to a server, in all processes.

    Raises `UserError` if vLLM is not installed, or if the server is one for other models or another
    token, and `EngineError` if the engine does not start or the server does not answer.
    """
    if options.engine == "server":
        return connect(options, resources, dtype)
    require_vllm()
    policy = resources.policy
    limit = options.max_length or context_length(policy.config)
    with tempfile.TemporaryDirectory(prefix="ebft-vllm-") as folder:
        save_config(policy, folder)
        start = Start(
            folder=folder,
            dtype=dtype,
            max_length=options.max_length,
            kv_cache_bytes=int(options.kv_cache_gib * 2**30),
            block_size=options.block_size,
            options={
                **share_of_gpu(options, policy.device),
                **(lora_options(rank_of(policy)) if options.sync == "adapter" else {}),
                **options.engine_options,
            },
        )
        timeouts = {"start_timeout": options.start_timeout, "timeout": options.timeout}
        engine: Engine
        if options.engine == "in_process":
            engine = InProcessEngine(start, **timeouts)
        else:
            engine = OwnProcessEngine(start, devices=options.devices, **timeouts)
    return Started(engine, limit, options.block_size)


def connect(options: VllmOptions, resources: Resources, dtype: str) -> Started:
    """Connects all processes to the server, the main process first."""
    processes = resources.processes
    run, engine = None, None
    if not processes.is_main and (run := processes.broadcast(None)) is None:
        raise FailedElsewhereError
    assert options.address is not None, "checked with the options"
    try:
        engine = RemoteEngine(
            Address.parse(options.address),
            read_token(options.token_file, says="sampler.token_file"),
            identity(resources.policy, resources.tokenizer),
            run=run,
            start_timeout=options.start_timeout,
            timeout=options.timeout,
        )
        limit, own = engine.hello["max_length"], options.max_length
        check_settings(options, engine.hello, dtype)
        if options.sync == "adapter":
            check_rank(options, engine.hello["max_lora_rank"], rank_of(resources.policy))
    except BaseException:
        if engine is not None:
            engine.close()
        if processes.is_main:
            processes.broadcast(None)
        raise
    if processes.is_main:
        processes.broadcast(engine.run)
    return Started(engine, own or limit, engine.hello["block_size"])


def check_settings(options: VllmOptions, hello: Mapping[str, Any], dtype: str) -> None:
    """Raises `UserError` for a recipe that a server with this dtype and limit does not suit."""
    says, server, limit = (
        f"sampler.address = {options.address}",
        hello["dtype"],
        hello["max_length"],
    )
    if server != dtype:
        raise UserError(
            f"{says}: the server's weights are {server}, and the recipe asks for {dtype}; start "
            f"`ebft-vllm serve --dtype {dtype}`, or set sampler.dtype={server}"
        )
    if limit is not None and options.max_length is not None and options.max_length > limit:
        raise UserError(
            f"sampler.max_length = {options.max_length}: the server takes {limit} tokens; set "
            f"sampler.max_length={limit}, or start `ebft-vllm serve --max-length "
            f"{options.max_length}`"
        )


def check_rank(options: VllmOptions, most: int | None, rank: int) -> None:
    """Raises `UserError` if a server does not take adapters of this rank."""
    if most is None or rank > most:
        what = "no adapters" if most is None else f"adapters of rank {most} at most"
        raise UserError(
            f"sampler.sync = adapter: the server at {options.address} takes {what}; start "
            f"`ebft-vllm serve --max-lora-rank {rank}`, or set sampler.sync=merged"
        )


def rank_of(policy: PreTrainedModel) -> int:
    """Returns the rank of the policy's adapter. Raises `UserError` if it has none."""
    if not has_adapter(policy):
        raise UserError(
            "sampler.sync = adapter: the policy has no adapter; set sampler.sync=merged, or "
            "model.lora"
        )
    rank: int = policy.peft_config[ADAPTER_NAME].r
    return rank


def lora_options(rank: int) -> dict[str, Any]:
    """Returns arguments of `vllm.LLM` for one adapter of at most this rank."""
    takes = next((most for most in RANKS if rank <= most), None)
    if takes is None:
        raise UserError(
            f"model.lora.rank = {rank}: vLLM takes adapters of rank {RANKS[-1]} at most; set "
            "sampler.sync=merged"
        )
    return {"enable_lora": True, "max_lora_rank": takes}


def share_of_gpu(options: VllmOptions, device: torch.device) -> dict[str, float]:
    """Returns `gpu_memory_utilization` for an engine on the trainer's GPU.

    vLLM does not start if less than this fraction of all memory is free, although it needs only
    memory for the weights and `kv_cache_gib`.
    """
    if device.type != "cuda" or options.devices is not None:
        return {}
    free, total = torch.cuda.mem_get_info(device)
    return {"gpu_memory_utilization": round(0.95 * free / total, 3)}


def save_config(policy: PreTrainedModel, folder: str) -> None:
    """Writes the config.json from which vLLM builds the same architecture."""
    config = type(policy.config).from_dict(policy.config.to_dict())
    config.architectures = [type(policy).__name__]
    # It describes weights on disk, but the engine loads unquantised ones from memory.
    if "quantization_config" in vars(config):
        del config.quantization_config
    config.save_pretrained(folder)
