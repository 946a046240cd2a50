"""Saves and restores the whole state of a run, also when a signal or an error ends it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.nested import check_nested
from ebft.checkpoints.shards import set_apart
from ebft.checkpoints.snapshot import About, Snapshot
from ebft.checkpoints.state import fits, gather_before_update, gather_state
from ebft.errors import PluginError, StorageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ebft.checkpoints.resume import Resumption
    from ebft.evaluation.history import History
    from ebft.training.parts import LoopParts

log = logging.getLogger("ebft")


class Checkpointer:
    """The state of a run between its steps: what a checkpoint has in it.

    `metrics` are those of every step so far: the loop appends to them.

    A step changes the parts' states first and the policy last. If it ends in between, the parts
    are given back as they were before it, so that a checkpoint is always of whole steps.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        loop: LoopParts,
        tokenizer: PreTrainedTokenizerBase,
        about: Callable[..., About],
        *,
        metrics: list[dict[str, float]],
        history: History,
        best: str | None,
        merge_adapter: bool,
    ) -> None:
        self._checkpoints, self._loop, self._tokenizer = checkpoints, loop, tokenizer
        self._about, self._metrics, self._history = about, metrics, history
        self._best, self._merge_adapter = best, merge_adapter
        self._updating = True
        loop.optimizer.register_step_pre_hook(self._on_update)
        self.step_done(0)

    def _on_update(self, *_arguments: Any) -> None:
        self._updating = True

    def step_done(self, done: int) -> None:
        """To be called after each step: its parts' states are remembered.

        Raises `PluginError` for state that a checkpoint does not hold.
        """
        before = gather_before_update(self._loop)
        try:
            check_nested(before)
        except TypeError as error:
            raise PluginError(f"state of {error}") from error
        # Last of all: until then nothing may break in, for the state is that of no whole step.
        self.done, self.before = done, copy.deepcopy(before)
        self._updating = False

    def at_rest(self) -> bool:
        """Whether the policy and the optimizer are those of a whole step."""
        return not self._updating

    def restore(
        self, resumed: Resumption, state: Mapping[str, Any], digests: Mapping[str, str]
    ) -> None:
        """Restores `state`: what a checkpoint holds besides the weights and the loop, which are
        restored before. Raises `UserError`."""
        before, now = state["micro_batch_tokens"], self._loop.micro_batch_tokens
        if before != now:
            log.warning(
                "micro-batches are of %d tokens now and were of %d: the same results to rounding, "
                "but not to the last bit",
                now, before,
            )  # fmt: skip
        self._metrics[:] = state["metrics"]
        if resumed.same_evaluation(digests):
            with fits("the held-out figures"):
                self._history.load_state_dict(state["history"])
        else:
            log.warning("held-out measurements are others: `before` is now step %d", resumed.step)
        self.step_done(resumed.step)

    def save(self, done: int, before: Mapping[str, Any] | None = None) -> None:
        """The checkpoint of a step; `before` replaces parts of the state. Raises `StorageError`.

        Of several processes each writes its part of the optimizer's state, and the main one the
        rest, for which each gives its part of the weights.
        """
        state = {
            **gather_state(self._loop),
            **(before or {}),
            "micro_batch_tokens": self._loop.micro_batch_tokens,
            "metrics": self._metrics,
            "history": self._history.state_dict(),
        }
        policy, processes = self._loop.policy, self._loop.processes
        weights, shards = None, dict[str, Tensor]()
        if processes.size > 1:
            from ebft.models.shard import gather_weights

            weights = gather_weights(policy, merge_adapter=self._merge_adapter)
            state, shards = set_apart(state, self._loop)
        scores = {} if self._best is None else self._history.scores(self._best)
        about = self._about(done, micro_batch=self._loop.micro_batch.documents)
        snapshot = Snapshot(
            policy, self._tokenizer, about, state, weights, self._merge_adapter, shards
        )
        self._checkpoints.save(snapshot, step=done, scores=scores, processes=processes)

    def newest(self) -> str:
        """Where the newest checkpoint is, for a message."""
        try:
            saved = self._checkpoints.saved()
        except StorageError as error:
            return str(error)
        return f"checkpoint: {saved[-1]}" if saved else "there is no checkpoint yet"

    def save_last_whole_step(self) -> bool:
        """Saves the last step that was completed, after another was broken off.

        False if there was no step yet, or the policy is in the middle of an update; or if this is
        one of several processes, which has a part of the weights and knows nothing of the others.
        """
        if self._loop.processes.size > 1:
            return False
        # The step that failed may have updated the policy before it did.
        done = self._loop.lr_scheduler.last_epoch
        if done > self.done:
            self.save(done)
            return True
        if self._updating or done == 0:
            return False
        self.save(done, self.before)
        return True
