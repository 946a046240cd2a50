"""Baseline `predicted_features`: the reward that is expected before each token."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ebft.baselines.leave_one_out import leave_one_out
from ebft.baselines.ridge import RunningRidge
from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Claim, Resources
from ebft.rollout.records import Prefixes, Terms

CONTEXTS = 64
"""Contexts whose features are predicted at a time: each token has a prediction as wide as φ."""


class PredictedFeatures(BaselinePart):
    """A_jt = r_j − φ̂_jt·w_j, with r_j = φ_j·w_j and φ̂_jt the prediction of φ_j before token t.

    The reward is linear in the rollout's own features: for feature matching,
    w_j = 2φ_y − 2/(n−1) Σ_{j'≠j} φ_j'. So its expectation given the tokens before t is that of φ_j,
    times w_j. φ̂_jt is a ridge regression of the final, transformed features on the feature map's
    state before the token and on the token's place, fitted to the rollouts of earlier steps. A
    token is credited only with what became known with it. The first step has no earlier rollouts
    and uses `leave_one_out`.
    """

    ridge: float = Field(
        0.01, gt=0, description="λ of the regression, relative to the mean variance of the states"
    )
    decay: float = Field(
        0.95, ge=0, le=1, description="weight of the earlier steps' rollouts at each step"
    )

    def per_token(self) -> bool:
        return True

    def claim(self) -> Claim:
        return Claim(True, "φ̂_jt is fitted to earlier steps, and knows of j only tokens before t")

    def build(self, resources: Resources) -> PredictedFeaturesBaseline:
        return PredictedFeaturesBaseline(self, resources.processes)


class PredictedFeaturesBaseline:
    """`PredictedFeatures` with its state, the regression."""

    def __init__(self, options: PredictedFeatures, processes: Processes = ONE_PROCESS) -> None:
        self._ridge = RunningRidge(options.ridge, options.decay, processes)

    def of_tokens(self, terms: Terms, prefixes: Prefixes) -> Float[Tensor, "P n G"]:
        mask = prefixes.mask
        if self._ridge.has_rows:
            baseline = self._predicted(prefixes)
        else:
            baseline = leave_one_out(terms)[..., None].expand(mask.shape)
        # After the prediction, which may not know this step's rollouts.
        final = prefixes.features[:, :, None].expand(*mask.shape, -1)
        self._ridge.absorb(with_place(prefixes.states)[mask], final[mask])
        return (terms.reward()[..., None] - baseline).where(mask, 0)

    def _predicted(self, prefixes: Prefixes) -> Float[Tensor, "P n G"]:
        parts = zip(
            torch.split(prefixes.states, CONTEXTS),
            torch.split(prefixes.direction, CONTEXTS),
            strict=True,
        )
        return torch.cat(
            [(self._ridge.predict(with_place(s)) @ w[..., None]).squeeze(-1) for s, w in parts]
        )

    def state_dict(self) -> dict[str, Any]:
        return self._ridge.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ridge.load_state_dict(state)


def with_place(states: Float[Tensor, "P n G F"]) -> Float[Tensor, "P n G F+2"]:
    """Returns the states with two more columns: the part of the G tokens that is left, and 1/t."""
    G = states.shape[2]
    t = torch.arange(1, G + 1, device=states.device, dtype=states.dtype)
    place = torch.stack([1 - (t - 1) / G, 1 / t], -1)
    return torch.cat([states, place.expand(*states.shape[:3], 2)], -1)
