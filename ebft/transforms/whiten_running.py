"""Transform `whiten_running`: whitening in feature space, by the second moment of the data."""

from __future__ import annotations

from dataclasses import replace
from math import inf, sqrt
from typing import Any

from jaxtyping import Float
from pydantic import Field, PositiveInt

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.lazy import Tensor, torch
from ebft.parts.part import Claim, Part, Resources
from ebft.rollout.records import Features
from ebft.transforms.gram import eigh


class WhitenRunning(Part):
    """φ̃ = M^{-1/2} φ / √D with M the second moment of the references of many contexts.

    M is computed from references of earlier steps, never from rollouts, so the map is fixed within
    a step and the gradient is unbiased. The first step has no earlier references and uses its own,
    so its gradient is biased; the bias falls with the number of contexts. The scale is such that
    references have ‖φ̃‖² ≈ 1 on average.
    """

    decay: float | None = Field(
        0.99, gt=0, lt=1, description="decay of earlier steps in M; null: all steps weigh the same"
    )
    refresh_every: PositiveInt = Field(10, description="steps between updates of M^{-1/2}")
    freeze_after: PositiveInt | None = Field(
        None, description="steps after which M is frozen; null: never"
    )
    shrinkage: float = Field(
        0.1, gt=0, le=1, description="s in (1−s) M + s tr(M)/D I, which keeps M invertible"
    )

    def claim(self) -> Claim:
        return Claim(False, "only the first step, whose M is made of its own references, is biased")

    def build(self, resources: Resources) -> RunningWhitening:
        return RunningWhitening(self, resources.processes)


class RunningWhitening:
    """`WhitenRunning` with its state: M, its total weight, the root in use, the step."""

    def __init__(self, options: WhitenRunning, processes: Processes = ONE_PROCESS) -> None:
        self._options, self._processes = options, processes
        self._moment: Tensor | None = None
        self._weight = 0.0
        self._root: Tensor | None = None
        self._step = 0
        self._last = inf if options.freeze_after is None else options.freeze_after

    def __call__(self, features: Features) -> Features:
        references = features.references.flatten(0, 1)
        self._move_to(references.device)
        if self._root is None:
            self._absorb(references)
        root = self._refreshed()
        if self._step > 0:
            self._absorb(references)
        self._step += 1
        return replace(
            features,
            samples=features.samples @ root,
            references=features.references @ root,
            layers=1,  # each dimension now mixes all layers
            stacked=False,
        )

    def _move_to(self, device: torch.device) -> None:
        """Moves the state, which is on the CPU after loading a checkpoint."""
        if self._moment is not None and self._root is not None:
            self._moment, self._root = self._moment.to(device), self._root.to(device)

    def _absorb(self, references: Float[Tensor, "N D"]) -> None:
        if self._step >= self._last:
            return
        decay = self._options.decay
        old, new = (1.0, 1.0) if decay is None else (decay, 1 - decay)
        count = self._processes.sum(torch.tensor(len(references)))
        moment = self._processes.sum(references.mT @ references) / int(count)
        past = 0.0 if self._moment is None else old * self._moment
        self._moment = past + new * moment
        self._weight = old * self._weight + new

    def _refreshed(self) -> Float[Tensor, "D D"]:
        at_last = self._step == self._last  # the frozen root includes all earlier steps
        due = self._step < self._last and self._step % self._options.refresh_every == 0
        if self._root is None or due or at_last:
            assert self._moment is not None
            self._root = inverse_root(
                self._moment / self._weight, shrinkage=self._options.shrinkage
            )
        return self._root

    def state_dict(self) -> dict[str, Any]:
        return {
            "moment": self._moment,
            "weight": self._weight,
            "root": self._root,
            "step": self._step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._moment, self._weight = state["moment"], state["weight"]
        self._root, self._step = state["root"], state["step"]


def inverse_root(moment: Float[Tensor, "D D"], *, shrinkage: float) -> Float[Tensor, "D D"]:
    """Returns the symmetric M_s^{-1/2} / √D of the shrunk moment M_s = (1−s) M + s tr(M)/D I.

    Raises `ValueError` for a moment of zeros.
    """
    D = len(moment)
    level = float(moment.diagonal().mean())
    if not level > 0:
        raise ValueError("whitening: the references' features are all zero")
    identity = torch.eye(D, dtype=moment.dtype, device=moment.device)
    values, vectors = eigh((1 - shrinkage) * moment + shrinkage * level * identity, "the moment")
    # Shrinkage bounds the eigenvalues from below; only rounding can violate the bound.
    values = values.clamp(min=shrinkage * level)
    return (vectors * values.rsqrt()) @ vectors.mT / sqrt(D)
