"""Saves and restores the whole state of a run, also when a signal or an error ends it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.nested import check_nested
from ebft.checkpoints.shards import extract_shards
from ebft.checkpoints.snapshot import Snapshot
from ebft.checkpoints.state import gather_before_update, gather_state, must_fit
from ebft.config.about import About
from ebft.errors import PluginError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from ebft.checkpoints.resume import Resumption
    from ebft.evaluation.history import Evaluations, History
    from ebft.training.parts import LoopParts

log = logging.getLogger("ebft")


class Checkpointer:
    """Saves the state of a run after a step, and restores it.

    `metrics` are those of every step so far; the loop appends to them. `card` returns the text of a
    checkpoint's README.md.

    A step changes the states of the parts first and the policy last. If a step is interrupted in
    between, the states from before the step are saved. So a checkpoint never holds half a step.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        loop: LoopParts,
        tokenizer: PreTrainedTokenizerBase,
        about: Callable[..., About],
        card: Callable[[About, Evaluations], str],
        *,
        metrics: list[dict[str, float]],
        history: History,
        best: str | None,
        merge_adapter: bool,
    ) -> None:
        self._checkpoints, self._loop, self._tokenizer = checkpoints, loop, tokenizer
        self._about, self._card, self._metrics, self._history = about, card, metrics, history
        self._best, self._merge_adapter = best, merge_adapter
        self._updating = True
        loop.optimizer.register_step_pre_hook(self._on_update)
        self.step_done(0)

    def _on_update(self, *_arguments: Any) -> None:
        self._updating = True

    def step_done(self, done: int) -> None:
        """Copies the states of the parts. The run calls it after each step.

        Raises `PluginError` for state that a checkpoint cannot hold.
        """
        before = gather_before_update(self._loop)
        try:
            check_nested(before)
        except TypeError as error:
            raise PluginError(f"state of {error}") from error
        # Last: until here a step must not be interrupted, because the state is inconsistent.
        self.done, self.before = done, copy.deepcopy(before)
        self._updating = False

    def at_rest(self) -> bool:
        """Whether the policy and the optimizer are not in the middle of an update."""
        return not self._updating

    def restore(
        self, resumed: Resumption, state: Mapping[str, Any], digests: Mapping[str, str]
    ) -> None:
        """Restores the metrics and the held-out figures of `state`, which a checkpoint holds.

        The weights and the loop must have been restored before. Raises `UserError` for state that
        does not fit.
        """
        before, now = state["micro_batch_tokens"], self._loop.micro_batch_tokens
        if before != now:
            log.warning(
                "micro-batches now have %d tokens and had %d: results are the same to rounding, "
                "but not bit for bit",
                now, before,
            )  # fmt: skip
        self._metrics[:] = state["metrics"]
        if resumed.same_evaluation(digests):
            with must_fit("the held-out figures"):
                self._history.load_state_dict(state["history"])
        else:
            log.warning(
                "the held-out measurements have changed: `before` is now step %d", resumed.step
            )
        self.step_done(resumed.step)

    def save(self, done: int, before: Mapping[str, Any] | None = None) -> Path:
        """Saves a checkpoint after `done` steps, and returns its folder; `before` replaces entries
        of the state.

        With several processes, each writes its shard of the optimizer's state and its rows of the
        weights. The main process writes the rest. Raises `StorageError`.
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
            from ebft.models.shard import weights_to_save

            weights = weights_to_save(policy, merge_adapter=self._merge_adapter)
            state, shards = extract_shards(state, self._loop)
        scores = {} if self._best is None else self._history.scores(self._best)
        about = self._about(done, micro_batch=self._loop.micro_batch.documents)
        snapshot = Snapshot(
            policy, self._tokenizer, about, state, weights, self._merge_adapter, shards,
            card=self._card(about, self._history), processes=processes,
        )  # fmt: skip
        return self._checkpoints.save(snapshot, step=done, scores=scores, processes=processes)

    def newest(self) -> str:
        """Returns the path of the newest checkpoint as part of a message."""
        try:
            saved = self._checkpoints.saved()
        except StorageError as error:
            return str(error)
        return f"checkpoint: {saved[-1]}" if saved else "there is no checkpoint yet"

    def save_last_whole_step(self, *, together: bool = False) -> bool:
        """Saves the last complete step after a later step was interrupted.

        Returns False and saves nothing if no step is complete, or if the policy is in the middle of
        an update. With several processes it saves only if they do it `together`: each has only a
        shard of the weights, and the others may not be able to save theirs.
        """
        if self._loop.processes.size > 1 and not together:
            return False
        # The step may have failed after it had updated the policy.
        done = self._loop.lr_scheduler.last_epoch
        if done > self.done:
            self.save(done)
            return True
        if self._updating or done == 0:
            return False
        self.save(done, self.before)
        return True
