"""Parts that `tests.benchmarks.signal` compares with those of ebft: what was tried and not kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

import ebft
from ebft.baselines.leave_one_out import leave_one_out
from ebft.baselines.moving_average import MovingAverageBaseline
from ebft.baselines.predicted_features import PredictedFeatures, PredictedFeaturesBaseline
from ebft.features.hidden_states import HiddenStates, HiddenStatesMap
from ebft.models.forward import decode
from ebft.models.log_probs import logits
from ebft.parts.part import Resources
from ebft.rollout.records import Contexts, Features, Prefixes, Rollouts, Terms
from ebft.rollout.tree import grow
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


class PredictedChange(PredictedFeatures):
    """Leave-one-out at the first token, and from there the change of the prediction:
    b_jt = b_j + (φ̂_jt − φ̂_j1)·w_j."""

    def build(self, resources: Resources) -> PredictedChangeBaseline:
        return PredictedChangeBaseline(self, resources.processes)


class PredictedChangeBaseline(PredictedFeaturesBaseline):
    def of_tokens(self, terms: Terms, prefixes: Prefixes) -> Tensor:
        predicted = super().of_tokens(terms, prefixes)
        of_context = terms.reward() - leave_one_out(terms) - predicted[..., 0]
        return (predicted + of_context[..., None]).where(prefixes.mask, 0)


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


class LastSummed(HiddenStates):
    """Hidden states of which the last token is summed over its likeliest values, not only sampled.

    φ̄_j = Σ_v p(v) φ(v) over these, plus φ_j if the sampled token is not among them, has the mean
    E[φ_j | all tokens but the last]. It is credited to all tokens but the last, whose own feature,
    φ_j − Σ p(v) φ(v)/Σ p(v), is appended to the states. For rollouts of fixed length.
    """

    likeliest: int = Field(4, ge=1, description="k, the values of the last token")

    def build(self, resources: Resources) -> LastSummedMap:
        return LastSummedMap(self, resources)


class LastSummedMap(HiddenStatesMap):
    def __init__(self, options: LastSummed, resources: Resources) -> None:
        super().__init__(options, resources)
        self._likeliest, self._policy = options.likeliest, resources.policy

    @torch.no_grad()
    def with_states(self, rollouts: Rollouts) -> tuple[Features, Tensor]:
        features, states = super().with_states(rollouts)
        p, tokens = self._last_tokens(rollouts)  # [P, n, k]
        each = [
            self(
                replace(rollouts, tokens=torch.cat([rollouts.tokens[..., :-1], other], -1))
            ).samples
            for other in tokens.split(1, -1)
        ]
        inside = (p[..., None] * torch.stack(each, 2)).sum(2)
        missed = (tokens != rollouts.tokens[..., -1:]).all(-1, keepdim=True)
        own = features.samples - inside / p.sum(-1, keepdim=True)
        expected = inside + features.samples.where(missed, 0)
        states = torch.cat([states, own[:, :, None].expand(*states.shape[:3], -1)], -1)
        return replace(features, samples=expected), states

    def _last_tokens(self, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
        """The likeliest last tokens, which the sampler knows, and their probabilities."""
        found = []
        for _, part in rollouts.split():
            tree = grow(part, steps=part.contexts.rollout_length - 1)
            hidden = decode(self._policy, tree.tokens, tree.positions, tree.mask)[0]
            z = logits(self._policy, hidden[tree.logit_index[..., -1].flatten()]).softmax(-1)
            best = z.topk(self._likeliest, -1)
            shape = (*part.tokens.shape[:2], -1)
            found.append((best.values.view(shape), best.indices.view(shape)))
        p, tokens = (torch.cat(column) for column in zip(*found, strict=True))
        return p, tokens


class LastSummedBaseline(PredictedFeatures):
    """Baselines of `last_summed` features: `predicted_features` or `leave_one_out`, and for the
    last token its own."""

    predicted: bool = Field(True, description="predicted_features, or leave_one_out")

    def build(self, resources: Resources) -> BuiltLastSummedBaseline:
        inner = PredictedFeaturesBaseline(self, resources.processes) if self.predicted else None
        return BuiltLastSummedBaseline(inner)


class BuiltLastSummedBaseline:
    def __init__(self, inner: PredictedFeaturesBaseline | None) -> None:
        self._inner = inner

    def of_tokens(self, terms: Terms, prefixes: Prefixes) -> Tensor:
        width = prefixes.states.shape[-1] - prefixes.features.shape[-1]
        states, own = prefixes.states[..., :width], prefixes.states[:, :, -1, width:]
        if self._inner is None:
            before = (terms.reward() - leave_one_out(terms))[..., None].expand(prefixes.mask.shape)
        else:
            before = self._inner.of_tokens(terms, replace(prefixes, states=states))
        last = (own * prefixes.direction).sum(-1, keepdim=True)
        return torch.cat([before[..., :-1], last], -1)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._inner is None else self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._inner is not None:
            self._inner.load_state_dict(state)


@ebft.hookimpl
def register_baselines() -> dict[str, Any]:
    return {
        "shrunk": Shrunk, "predicted_change": PredictedChange, "across_halves": AcrossHalves,
        "last_summed": LastSummedBaseline,
    }  # fmt: skip


@ebft.hookimpl
def register_samplers() -> dict[str, Any]:
    return {"arithmetic": Arithmetic}


@ebft.hookimpl
def register_feature_maps() -> dict[str, Any]:
    return {"last_summed": LastSummed}
