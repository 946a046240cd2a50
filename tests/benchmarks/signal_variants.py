"""The variants that `tests.benchmarks.signal` compares, as functions of one document's rollouts.

Those that are parts of ebft are called as the loop calls them. Those that were tried and not kept
are written out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ebft.baselines.leave_one_out import leave_one_out
from ebft.baselines.predicted_features import PredictedFeatures, PredictedFeaturesBaseline
from ebft.parts.interfaces import Transform
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features, Prefixes, Rollouts, Terms
from ebft.transforms.whiten_running import RunningWhitening, WhitenRunning

REWARD = FeatureMatching()


class LastTokens(NamedTuple):
    """The likeliest last tokens of rollouts: probabilities [P, n, k], features [P, n, k, D], and
    the rank of the sampled one [P, n], k if it is not among them."""

    probabilities: Tensor
    features: Tensor
    rank: Tensor


@dataclass(frozen=True)
class Batch:
    """Rollouts with features, with the states before tokens, and with other last tokens, if any."""

    rollouts: Rollouts
    features: Features
    states: Tensor
    last: LastTokens | None = None

    def first(self, n: int) -> Batch:
        """The first n rollouts of each context."""
        r, f = self.rollouts, self.features
        return Batch(
            replace(r, tokens=r.tokens[:, :n], log_probs=r.log_probs[:, :n], mask=r.mask[:, :n]),
            replace(f, samples=f.samples[:, :n]),
            self.states[:, :n],
            None if self.last is None else LastTokens(*(x[:, :n] for x in self.last)),
        )

    def prefixes(self, features: Features, reward: FeatureMatching = REWARD) -> Prefixes:
        rollouts = self.rollouts
        return Prefixes(
            self.states, rollouts.mask, features.samples, reward.direction(features)
        )  # fmt: skip


Advantages = Callable[[Batch], Tensor]
"""[P, n] or [P, n, G], from a batch of n rollouts."""


WarmUp = Callable[[Batch], None]


class Variant(NamedTuple):
    """`n` rollouts of a kind of sampling, scored by `advantages`.

    `regression`: whether features are predicted, and `extra_frozen`: frozen tokens a rollout beyond
    the default's; both cost FLOPs. `same`: whether the expected gradient is the default's.
    """

    n: int
    advantages: Advantages
    sampling: str = "independent"
    regression: bool = False
    extra_frozen: int = 0
    same: bool = True


class Fitted:
    """Parts with state, after the warm-up's steps; measuring does not change them."""

    def __init__(
        self,
        transform: WhitenRunning | None,
        baseline: PredictedFeatures | None,
    ) -> None:
        self._transform = None if transform is None else RunningWhitening(transform)
        self._baseline = None if baseline is None else PredictedFeaturesBaseline(baseline)

    def transformed(self, batch: Batch) -> Features:
        return (
            batch.features if self._transform is None else frozen(self._transform)(batch.features)
        )

    def warm_up(self, batch: Batch) -> None:
        features = batch.features if self._transform is None else self._transform(batch.features)
        if self._baseline is not None:
            prefixes = batch.prefixes(features)
            self._baseline.of_tokens(REWARD(batch.rollouts, features), prefixes)

    def __call__(self, batch: Batch) -> Tensor:
        features = self.transformed(batch)
        terms = REWARD(batch.rollouts, features)
        if self._baseline is None:
            return terms.reward() - leave_one_out(terms)
        return self.predict(terms, batch.prefixes(features))

    def predict(self, terms: Terms, prefixes: Prefixes) -> Tensor:
        assert self._baseline is not None
        state = self._baseline.state_dict()
        advantages = self._baseline.of_tokens(terms, prefixes)
        self._baseline.load_state_dict(state)
        return advantages


def frozen(transform: RunningWhitening) -> Transform:
    """The transform as it is, without what the call would add to its state."""

    def call(features: Features) -> Features:
        state = transform.state_dict()
        given = transform(features)
        transform.load_state_dict(state)
        return given

    return call


class StepMean:
    """The mean reward of the warm-up's steps, as `moving_average` has it, for any n."""

    def __init__(self) -> None:
        self.sum, self.count = 0.0, 0

    def warm_up(self, batch: Batch) -> None:
        reward = REWARD(batch.rollouts, batch.features).reward()
        self.sum, self.count = self.sum + float(reward.sum()), self.count + reward.numel()

    @property
    def value(self) -> float:
        return self.sum / self.count


def shrunk(mean: StepMean, weight: float) -> Advantages:
    """Two levels: the context's leave-one-out baseline, drawn to the mean over other contexts."""

    def advantages(batch: Batch) -> Tensor:
        terms = REWARD(batch.rollouts, batch.features)
        return terms.reward() - (1 - weight) * leave_one_out(terms) - weight * mean.value

    return advantages


def across_halves(batch: Batch) -> Tensor:
    """Pairs and baselines between the two halves of the rollouts, which are independent; those of
    one half need not be."""
    features = batch.features.samples
    half = features.shape[1] // 2
    reference = batch.features.references.mean(1, keepdim=True)
    mine, others = features.unflatten(1, (2, half)), features.unflatten(1, (2, half)).flip(1)
    mean = others.mean(2, keepdim=True)  # [P, 2, 1, D]
    direction = 2 * reference[:, None] - 2 * mean
    # A function of the other half alone: its rewards, with pairs among themselves.
    pairs = others @ others.mT
    among = (pairs.sum(-1) - pairs.diagonal(dim1=-2, dim2=-1)) / max(half - 1, 1)
    baseline = (2 * (others * reference[:, None]).sum(-1) - 2 * among).mean(2, keepdim=True)
    return ((mine * direction).sum(-1) - baseline).flatten(1)


def across_halves_predicted(fitted: Fitted) -> Advantages:
    def advantages(batch: Batch) -> Tensor:
        features = batch.features.samples
        half = features.shape[1] // 2
        other = features.unflatten(1, (2, half)).flip(1).mean(2, keepdim=True)
        other = other.expand(-1, -1, half, -1).flatten(1, 2)
        direction = 2 * batch.features.references.mean(1, keepdim=True) - 2 * other
        unary = (features * direction).sum(-1)
        prefixes = replace(batch.prefixes(batch.features), direction=direction)
        return fitted.predict(Terms.of_unary(unary), prefixes)

    return advantages


def summed_last(k: int, fitted: Fitted | None) -> Advantages:
    """The last token summed over its k likeliest values instead of sampled.

    φ̄_j = Σ_v p(v) φ(v) over these, plus φ_j if the sampled one is not among them: its mean is
    E[φ_j] given all tokens but the last. It takes the place of φ_j for all tokens but the last one,
    and in the other rollouts' pairs. The last token's baseline is the mean over the k.
    """

    def advantages(batch: Batch) -> Tensor:
        assert batch.last is not None
        p = batch.last.probabilities[..., :k, None]
        inside = (p * batch.last.features[..., :k, :]).sum(-2)
        missed = (batch.last.rank >= k)[..., None]
        expected = inside + batch.features.samples.where(missed, 0)
        features = replace(batch.features, samples=expected)
        terms = REWARD(batch.rollouts, features)
        direction = REWARD.direction(features)
        if fitted is None:
            whole = (terms.reward() - leave_one_out(terms))[..., None]
            before = whole.expand(batch.rollouts.mask.shape)
        else:
            before = fitted.predict(terms, batch.prefixes(features))
        final = ((batch.features.samples - inside / p.sum(-2)) * direction).sum(-1)
        return torch.cat([before[..., :-1], final[..., None]], -1)

    return advantages


def make_variants(
    *, last_tokens: bool
) -> tuple[Mapping[str, Variant], list[Callable[[Batch], None]]]:
    """The variants, and what the warm-up calls."""
    mean, plain, predicted = StepMean(), Fitted(None, None), Fitted(None, PredictedFeatures())
    whitened = Fitted(WhitenRunning(refresh_every=1, decay=None), None)
    both = Fitted(WhitenRunning(refresh_every=1, decay=None), PredictedFeatures())

    def none(batch: Batch) -> Tensor:
        return REWARD(batch.rollouts, batch.features).reward()

    variants = {
        "leave_one_out, n 4": Variant(4, plain),
        "none, n 4": Variant(4, none),
        "mean of earlier steps, n 4": Variant(4, shrunk(mean, 1.0)),
        "shrinkage ¼, n 4": Variant(4, shrunk(mean, 0.25)),
        "shrinkage ½, n 4": Variant(4, shrunk(mean, 0.5)),
        "predicted_features, n 4": Variant(4, predicted, regression=True),
        "leave_one_out, n 2": Variant(2, plain),
        "predicted_features, n 2": Variant(2, predicted, regression=True),
        "leave_one_out, n 8": Variant(8, plain),
        "predicted_features, n 8": Variant(8, predicted, regression=True),
        "mean of earlier steps, n 8": Variant(8, shrunk(mean, 1.0)),
        "shrinkage ½, n 8": Variant(8, shrunk(mean, 0.5)),
        "leave_one_out, n 16": Variant(16, plain),
        "predicted_features, n 16": Variant(16, predicted, regression=True),
        "arithmetic sampling in halves, n 8": Variant(8, across_halves, "arithmetic"),
        "independent halves, n 8": Variant(8, across_halves),
        "arithmetic, predicted, n 8": Variant(
            8, across_halves_predicted(predicted), "arithmetic", regression=True
        ),
        "whiten_running, n 4": Variant(4, whitened, same=False),
        "whiten_running, predicted, n 8": Variant(8, both, regression=True, same=False),
    }
    for k in (4, 16) if last_tokens else ():
        for name, n in (
            ("leave_one_out", 4),
            ("predicted", 4),
            ("predicted", 8),
            ("predicted", 16),
        ):
            fitted = None if name == "leave_one_out" else predicted
            variants[f"last token summed over {k}, {name}, n {n}"] = Variant(
                n, summed_last(k, fitted), regression=fitted is not None, extra_frozen=k
            )
    return variants, [one.warm_up for one in (mean, predicted, whitened, both)]
