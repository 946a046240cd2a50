"""Starts the engine that a recipe asks for, or connects to it."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, NamedTuple

import torch

from ebft.errors import FailedElsewhereError, UserError
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
            options={**share_of_gpu(options, policy.device), **options.engine_options},
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
        check_settings(options, engine.hello["dtype"], dtype, limit)
    except BaseException:
        if engine is not None:
            engine.close()
        if processes.is_main:
            processes.broadcast(None)
        raise
    if processes.is_main:
        processes.broadcast(engine.run)
    return Started(engine, own or limit, engine.hello["block_size"])


def check_settings(options: VllmOptions, server: str, dtype: str, limit: int | None) -> None:
    """Raises `UserError` for a recipe that a server with this dtype and limit does not suit."""
    says = f"sampler.address = {options.address}"
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
