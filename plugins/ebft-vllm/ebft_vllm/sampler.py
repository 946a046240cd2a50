"""`Vllm` bound to a policy: contexts → rollouts, and the sync after every optimizer step."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from ebft.errors import EngineError, SamplerMismatchError
from ebft.models.lora import has_adapter, merged
from ebft.models.shape import context_length
from ebft.parts.part import Resources
from ebft.rollout.records import Contexts, Rollouts
from ebft_vllm.available import require_vllm
from ebft_vllm.in_process import InProcessEngine
from ebft_vllm.messages import Engine, Start
from ebft_vllm.options import VllmOptions
from ebft_vllm.own_process import OwnProcessEngine
from ebft_vllm.probe import largest_gap, probe_contexts
from ebft_vllm.rollouts import check_lengths, make_job, rollouts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("ebft.vllm")

EXACT, ROUNDED = 0.005, 0.5
"""Default tolerances of the probe, in nats: float32 on both sides, or bfloat16 on one.

Measured: up to 4e-5 and 0.4 with the right weights, 1.4 and more with a stale head.
"""
BEFORE_TRAINING = -1


class VllmSampler:
    """Samples rollouts from an engine, copies the policy's weights to it, and probes it."""

    def __init__(self, options: VllmOptions, resources: Resources) -> None:
        require_vllm()
        self.n = options.n
        self._options, self._resources = options, resources
        policy = resources.policy
        precision = str(resources.precision).removeprefix("torch.")
        dtype = options.dtype or precision
        exact = dtype == precision == "float32"
        self._tolerance = options.probe_tolerance or (EXACT if exact else ROUNDED)
        if has_adapter(policy) and dtype != "float32":
            log.warning(
                "sampler.dtype = %s: the engine rounds weights with the adapter's updates in them, "
                "so updates that are small relative to the weights are lost; set "
                "sampler.dtype=float32 to sample from what is trained", dtype,
            )  # fmt: skip
        self._limit = options.max_length or context_length(policy.config)
        self._probe = probe_contexts(
            count=options.probe_contexts,
            vocabulary=policy.config.vocab_size,
            block_size=options.block_size,
            limit=self._limit,
        ).to(resources.device)
        since = perf_counter()
        log.info("starting a vLLM engine (%s, %s) …", options.engine, dtype)
        self.engine = start_engine(options, policy, dtype)
        figures = self.sync(policy, step=BEFORE_TRAINING)
        log.info(
            "vLLM engine (%s, %s) started in %.1f s; largest probe gap %.2g of %.2g allowed",
            options.engine, dtype, perf_counter() - since, figures["probe_gap"], self._tolerance,
        )  # fmt: skip

    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts:
        check_lengths(contexts, self._limit)
        options, resources = self._options, self._resources
        job = make_job(
            contexts,
            n=self.n,
            temperature=options.temperature,
            eos=resources.tokenizer.eos_token_id,
            seed=resources.seed,
            step=step,
        )
        try:
            samples = self.engine.sample(job)
        except EngineError as error:
            raise EngineError(f"{_when(step)}: {error}") from error
        return rollouts_of(
            contexts, samples,
            n=self.n, tokenizer=resources.tokenizer, temperature=options.temperature,
        )  # fmt: skip

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:
        """Copies the policy's weights to the engine, merged if it has an adapter, and probes it.

        Returns `sync_seconds` and `probe_gap` (nats). Raises `SamplerMismatchError` if the gap is
        more than `probe_tolerance`.
        """
        since = perf_counter()
        # `named_parameters` leaves out a tied head, and vLLM would silently keep its old one; a
        # state dict has it.
        weights = {name: w.detach() for name, w in merged(policy).state_dict().items()}
        try:
            self.engine.load(weights)
        except EngineError as error:
            raise EngineError(f"{_when(step)}: {error}") from error
        seconds = perf_counter() - since
        gap = self.probe(policy, step=step)
        if gap > self._tolerance:
            raise SamplerMismatchError(
                f"{_when(step)}: after the sync, the vLLM engine's log-probs differ from the "
                f"trainer's by up to {gap:.3g} nats on the probe's contexts, more than "
                f"sampler.probe_tolerance = {self._tolerance:g}: the weights were not copied "
                "correctly, or the two compute differently"
            )
        return {"sync_seconds": seconds, "probe_gap": gap}

    def probe(self, policy: PreTrainedModel, *, step: int) -> float:
        """Returns the largest |log p(engine) − log p(trainer)|, in nats, on fixed contexts."""
        return largest_gap(policy, self(self._probe, step=step), self._resources.precision)


def _when(step: int) -> str:
    return "before the first step" if step == BEFORE_TRAINING else f"step {step + 1}"


def start_engine(options: VllmOptions, policy: PreTrainedModel, dtype: str) -> Engine:
    """Starts the engine with random weights. Raises `EngineError` if it does not start."""
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
        if options.engine == "in_process":
            return InProcessEngine(start, **timeouts)
        return OwnProcessEngine(start, devices=options.devices, **timeouts)


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


class Vllm(VllmOptions):
    """Samples from a vLLM engine that holds a copy of the policy's weights.

    It pays off for long completions and large models; for short rollouts at many anchors, hf_tree
    does less work. After every optimizer step the weights are copied to the engine in memory, its
    prefix cache is reset, and it is probed: it samples from fixed contexts, and its log-probs must
    equal the trainer's.
    """

    def build(self, resources: Resources) -> VllmSampler:
        """Starts the engine, copies the policy's weights to it and probes it.

        Raises `UserError` if vLLM is not installed, `EngineError` if the engine does not start, and
        `SamplerMismatchError` if its log-probs differ from the trainer's.
        """
        return VllmSampler(self, resources)
