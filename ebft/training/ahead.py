"""Sampling the rollouts of a step while the step before it trains: one step off-policy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from threading import Thread
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ebft.errors import UserError
from ebft.parts.interfaces import check_returned
from ebft.parts.stateful import Stateful, load_part_states, part_states
from ebft.rollout.records import Contexts, Rollouts
from ebft.training.checks import sync_figures

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ebft.distributed.processes import Processes
    from ebft.parts.interfaces import Sampler
    from ebft.parts.kinds import SamplerPart
    from ebft.training.parts import LoopParts

log = logging.getLogger("ebft")


def sampling_ahead(loop: LoopParts, part: SamplerPart) -> LoopParts:
    """The loop with its sampler, built from `part`, one step ahead.

    Raises `UserError` for a plan with state, and for a sampler that cannot do it in so many
    processes.
    """
    parts, says = loop.rollout_parts, "training.sample_ahead = 1"
    assert parts is not None, "checked"
    if isinstance(loop.plan, Stateful):
        raise UserError(
            f"{says}: the plan {type(loop.plan).__name__} has state, and would be asked for a "
            "step's contexts twice; leave it out, or take another plan"
        )
    if not part.has_own_weights(loop.processes.size):
        raise UserError(
            f"{says}: the sampler {type(part).__name__} cannot sample while {loop.processes.size} "
            "processes train; run one process, or leave it out"
        )
    ahead = SamplerAhead(parts.sampler, loop.contexts, loop.processes)
    return replace(loop, rollout_parts=replace(parts, sampler=ahead))


class Sampled(NamedTuple):
    """Rollouts without their contexts, which are a function of the step."""

    tokens: Int[Tensor, "P n G"]
    log_probs: Float[Tensor, "P n G"]
    mask: Bool[Tensor, "P n G"]
    temperature: float


@dataclass(frozen=True, slots=True)
class Pending:
    """The rollouts of a step that are being sampled, or have been."""

    step: int
    samples: Future[Sampled]

    def result(self) -> Sampled | None:
        """What has been sampled; None if that is not done, or has failed."""
        if not self.samples.done() or self.samples.exception() is not None:
            return None
        return self.samples.result()


class SamplerAhead:
    """A sampler that has the rollouts of the next step sampled while a step trains.

    When step t takes its rollouts, `sampler` begins with those of step t+1. It has the weights of
    step t's start until `sync` gives it new ones, which waits until it is done. So step t+1 trains
    the policy p of its own start on rollouts of the policy q before it, with the importance weights
    p/q (`training.objective`). The first step's rollouts are of its own weights.

    `sampler` must have a copy of the weights that does not change while the policy is trained
    (`SamplerPart.has_own_weights`); it is called in another thread. `contexts` is a pure function
    of the step. The pending rollouts are state, because the weights that they were sampled from are
    gone when the run is resumed.
    """

    def __init__(
        self, sampler: Sampler, contexts: Callable[[int], Contexts], processes: Processes
    ) -> None:
        self.n = sampler.n
        self._sampler, self._contexts, self._processes = sampler, contexts, processes
        self._pending: Pending | None = None

    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts:
        """Returns the rollouts of a step, sampled before if possible, and begins with the next.

        Raises what the sampler raised.
        """
        self._wait()
        pending, self._pending = self._pending, None
        if pending is not None and pending.step == step:
            samples = pending.samples.result()
        else:
            samples = self._sample(contexts, step)
        self._pending = Pending(step + 1, self._begin(step + 1))
        return Rollouts(contexts, *samples)

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:
        """Waits for the rollouts of the next step, then copies the weights to the sampler.

        Returns its figures and `sampling_wait_seconds`. If sampling has failed, the next step
        raises the error, with the state of this one intact.
        """
        since = perf_counter()
        self._wait()
        waited = perf_counter() - since
        figures = sync_figures(self._sampler.sync(policy, step=step))
        return {**figures, "sampling_wait_seconds": waited}

    def state_dict(self) -> dict[str, Any]:
        """The sampler's own state and the pending rollouts of all processes, which must all call
        it. None are pending if sampling has failed."""
        pending: dict[str, Any] | None = None
        if self._pending is not None and (samples := self._pending.result()) is not None:
            gather = self._processes.gather
            pending = {
                "step": self._pending.step,
                "processes": self._processes.size,
                "tokens": gather(samples.tokens),
                "log_probs": gather(samples.log_probs),
                "mask": gather(samples.mask.long()),
                "temperature": samples.temperature,
            }
        return {"sampler": part_states([self._sampler]), "pending": pending}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state. Rollouts of another number of processes are sampled again, from the
        weights that the sampler has now."""
        self._wait()
        self._pending = None
        load_part_states([self._sampler], state["sampler"])
        if (saved := state["pending"]) is None:
            return
        if saved["processes"] != self._processes.size:
            log.warning(
                "step %d: its rollouts were sampled ahead in %d processes and there are %d now; "
                "they are sampled again, from newer weights",
                saved["step"] + 1, saved["processes"], self._processes.size,
            )  # fmt: skip
            return
        contexts, own = self._contexts(saved["step"]), self._processes.own
        tokens, log_probs, mask = (
            own(saved[name].to(contexts.tokens.device), contexts.anchor)
            for name in ("tokens", "log_probs", "mask")
        )
        if len(tokens) != len(contexts):
            raise ValueError(f"rollouts of {len(tokens)} contexts, and there are {len(contexts)}")
        samples = Future[Sampled]()
        samples.set_result(Sampled(tokens, log_probs, mask.bool(), saved["temperature"]))
        self._pending = Pending(saved["step"], samples)

    def _begin(self, step: int) -> Future[Sampled]:
        """Samples a step's rollouts in a thread."""
        # Here, because this may be a collective of all processes.
        contexts, samples = self._contexts(step), Future[Sampled]()

        def run() -> None:
            try:
                samples.set_result(self._sample(contexts, step))
            except BaseException as error:  # raised where the result is taken
                samples.set_exception(error)

        # A daemon, so that a run that is interrupted does not wait for it.
        Thread(target=run, name=f"rollouts of step {step + 1}", daemon=True).start()
        return samples

    def _sample(self, contexts: Contexts, step: int) -> Sampled:
        rollouts = self._sampler(contexts, step=step)
        check_returned("sampler", rollouts, Rollouts)
        return Sampled(rollouts.tokens, rollouts.log_probs, rollouts.mask, rollouts.temperature)

    def _wait(self) -> None:
        if self._pending is not None:
            wait([self._pending.samples])
