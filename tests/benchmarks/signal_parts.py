"""Parts that `tests.benchmarks.signal` compares with those of ebft: what was tried and not kept."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import ebft
from ebft.baselines.leave_one_out import leave_one_out
from ebft.baselines.moving_average import MovingAverageBaseline
from ebft.models.log_probs import logits
from ebft.parts.part import Resources
from ebft.rollout.records import Contexts, Rollouts, Terms
from ebft.samplers.hf_tree import HfTree, HfTreeSampler


class Shrunk(ebft.BaselinePart):
    """(1−s) leave-one-out + s (the mean reward of earlier steps): shrinkage between two levels."""

    share: float = Field(0.5, ge=0, le=1, description="s")

    def claim(self) -> ebft.Claim:
        return ebft.Claim(True, "neither level depends on rollout j")

    def build(self, resources: Resources) -> ShrunkBaseline:
        return ShrunkBaseline(self.share)


class ShrunkBaseline(MovingAverageBaseline):
    def __init__(self, share: float) -> None:
        super().__init__(decay=0.9)
        self._share = share

    def __call__(self, terms: Terms) -> Tensor:
        of_step = super().__call__(terms)
        return self._share * of_step + (1 - self._share) * (terms.reward() - leave_one_out(terms))


class AcrossHalves(ebft.BaselinePart):
    """Pairs and baselines between the two halves of a context's rollouts, which are independent;
    rollouts of one half need not be.

    A_j = u_j + 1/h Σ_i k_ji − b over the h rollouts i of the other half. b is the mean reward in
    that half, with pairs among themselves.
    """

    def claim(self) -> ebft.Claim:
        return ebft.Claim(True, "the halves are independent, and j is in one of them")

    def __call__(self, terms: Terms) -> Tensor:
        P, n = terms.unary.shape
        h = n // 2
        unary = terms.unary.view(P, 2, h)
        pairs = terms.pairwise.view(P, 2, h, 2, h)
        across = torch.stack([pairs[:, 0, :, 1], pairs[:, 1, :, 0]], 1).mean(-1)
        within = torch.stack([pairs[:, i, :, i] for i in (0, 1)], 1).sum((-1, -2))
        of_half = unary.mean(-1) + within / max(h * (h - 1), 1)
        return (unary + across - of_half.flip(1)[..., None]).flatten(1)


class Arithmetic(HfTree):
    """Arithmetic sampling (Vilnis et al. 2023, arXiv 2210.15458), in groups of `together`.

    A rollout is the sequence whose interval of the arithmetic code contains a point of [0, 1). The
    points of a group have equal distances and a uniform shift. So each point is uniform, each
    rollout has the policy's distribution, and groups are independent.
    """

    together: int = Field(4, ge=2, description="rollouts of a group")

    def build(self, resources: Resources) -> ArithmeticSampler:
        return ArithmeticSampler(self, resources)


class ArithmeticSampler(HfTreeSampler):
    def __init__(self, options: Arithmetic, resources: Resources) -> None:
        super().__init__(options, resources)
        self._together = options.together
        self._points: Tensor | None = None
        self._merges = False  # each branch has a point of its own

    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts:
        parts = []
        for _, one in contexts.split():
            self._points = None
            parts.append(super().__call__(one, step=step))
            assert self._points is not None, "drawn by points"
        tokens, log_probs, mask = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ("tokens", "log_probs", "mask")
        )
        return Rollouts(contexts, tokens, log_probs, mask, parts[0].temperature)

    def _draw(self, hidden: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        if self._points is None:  # the first token: a row for each context
            m = self._together
            shift = uniform.double()[:, ::m].repeat_interleave(m, 1)
            points = (shift + torch.arange(self.n) % m / m) % 1
        else:
            points = self._points.view(uniform.shape)
        p = logits(self._policy, hidden).double().softmax(-1)
        until = p.cumsum(-1)
        until = until / until[:, -1:]
        tokens = torch.searchsorted(until, points, right=True).clamp(max=p.shape[1] - 1)
        chosen = p.gather(1, tokens)
        rest = (points - (until.gather(1, tokens) - chosen)) / chosen
        # float64 has 53 bits: digits that a likely code does not have are drawn anew.
        self._points = (rest + 2**-40 * uniform).clamp(0, 1 - 2**-53).flatten()
        return tokens, chosen.log().to(hidden.dtype)


@ebft.hookimpl
def register_baselines() -> dict[str, Any]:
    return {"shrunk": Shrunk, "across_halves": AcrossHalves}


@ebft.hookimpl
def register_samplers() -> dict[str, Any]:
    return {"arithmetic": Arithmetic}
