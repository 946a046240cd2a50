"""`Vllm` bound to a policy: contexts → rollouts, and the sync after every optimizer step."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar, cast

import torch

from ebft.errors import EngineError, SamplerMismatchError
from ebft.models.export import save_adapter
from ebft.models.lora import has_adapter, merged, without_adapter
from ebft.models.quantize import dense
from ebft.models.shard import whole_weights
from ebft.models.whole import is_sharded
from ebft.parts.part import Resources
from ebft.rollout.records import Contexts, Rollouts
from ebft_vllm.engines import start_engine
from ebft_vllm.options import VllmOptions
from ebft_vllm.probe import largest_gap, probe_contexts
from ebft_vllm.rollouts import check_lengths, make_job, rollouts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("ebft.vllm")
Answer = TypeVar("Answer")

EXACT, ROUNDED = 0.005, 0.5
"""Default tolerances of the probe, in nats: float32 on both sides, or bfloat16 on one.

Measured: up to 4e-5 and 0.4 with the right weights, 1.4 and more with a stale head.
"""
BEFORE_TRAINING = -1


class VllmSampler:
    """Samples rollouts from an engine, copies the policy's weights to it, and probes it."""

    def __init__(self, options: VllmOptions, resources: Resources) -> None:
        self.n = options.n
        self._options, self._resources = options, resources
        policy = resources.policy
        precision = str(resources.precision).removeprefix("torch.")
        dtype = options.dtype or precision
        exact = dtype == precision == "float32"
        self._tolerance = options.probe_tolerance or (EXACT if exact else ROUNDED)
        if has_adapter(policy) and dtype != "float32" and options.sync == "merged":
            log.warning(
                "sampler.dtype = %s: the engine rounds weights with the adapter's updates in them, "
                "so updates that are small relative to the weights are lost; to sample from what "
                "is trained, set sampler.sync=adapter or sampler.dtype=float32", dtype,
            )  # fmt: skip
        self._base_of: PreTrainedModel | None = None
        since = perf_counter()
        log.info("starting a vLLM engine (%s, %s) …", options.engine, dtype)
        self.engine, self._limit, block_size = start_engine(options, resources, dtype)
        self._probe = probe_contexts(
            count=options.probe_contexts,
            vocabulary=policy.config.vocab_size,
            block_size=block_size,
            limit=self._limit,
        ).to(resources.device)
        figures = self.sync(policy, step=BEFORE_TRAINING)
        log.info(
            "vLLM engine (%s, %s) ready in %.1f s; largest probe gap %.2g of %.2g allowed",
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
        samples = self._in_all_processes(lambda: self.engine.sample(job), step)
        return rollouts_of(
            contexts, samples,
            n=self.n, tokenizer=resources.tokenizer, temperature=options.temperature,
        )  # fmt: skip

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:
        """Copies the policy's weights to the engine, as `sampler.sync` says, and probes it.

        Returns `sync_seconds` and `probe_gap` (nats). Raises `SamplerMismatchError` if the gap is
        more than `probe_tolerance`.
        """
        since = perf_counter()
        if self._options.sync == "adapter":
            if self._base_of is not policy:
                self._load(without_adapter(policy), step)
                self._base_of = policy
            self._load_adapter(policy, step)
        else:
            self._load(merged(policy), step)
        seconds = perf_counter() - since
        gap = self.probe(policy, step=step)
        if gap > self._tolerance:
            error = SamplerMismatchError(
                f"{_when(step)}: after the sync, the vLLM engine's log-probs differ from the "
                f"trainer's by up to {gap:.3g} nats on the probe's contexts, more than "
                f"sampler.probe_tolerance = {self._tolerance:g}: the weights were not copied "
                "correctly, or the two compute differently"
            )
            error.in_all_processes = True
            raise error
        return {"sync_seconds": seconds, "probe_gap": gap}

    def _load(self, model: PreTrainedModel, step: int) -> None:
        # `named_parameters` leaves out a tied head, and vLLM would silently keep its old one; a
        # state dict has it.
        weights = {name: dense(weight.detach()) for name, weight in model.state_dict().items()}
        self._in_all_processes(lambda: self.engine.load(weights), step)

    def _load_adapter(self, policy: PreTrainedModel, step: int) -> None:
        weights = None if not is_sharded(policy) else whole_weights(policy, trained_alone=True)
        with tempfile.TemporaryDirectory(prefix="ebft-vllm-") as folder:
            if self._resources.processes.is_main:
                save_adapter(policy, Path(folder), weights)
            self._in_all_processes(lambda: self.engine.load_adapter(Path(folder)), step)

    def probe(self, policy: PreTrainedModel, *, step: int) -> float:
        """Returns the largest |log p(engine) − log p(trainer)|, in nats, on fixed contexts, of all
        processes."""
        gap = largest_gap(policy, self(self._probe, step=step), self._resources.precision)
        return float(self._resources.processes.gather(torch.tensor([gap])).max())

    def _in_all_processes(self, call: Callable[[], Answer], step: int) -> Answer:
        """Returns the answer of the engine to this process. Raises `EngineError` in all processes
        if the engine failed in one of them, so that all are at the same place when they save."""
        answer, problem = None, None
        try:
            answer = call()
        except EngineError as error:
            problem = error
        elsewhere = self._resources.processes.first(None if problem is None else str(problem))
        if elsewhere is not None:
            failure = EngineError(f"{_when(step)}: {elsewhere if problem is None else problem}")
            failure.in_all_processes = True
            raise failure from problem
        return cast(Answer, answer)


def _when(step: int) -> str:
    return "before the first step" if step == BEFORE_TRAINING else f"step {step + 1}"


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
