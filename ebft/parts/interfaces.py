"""What each interchangeable part is for the training loop: a plain object with one call.

A part registers a frozen options model (`ebft.Part`) whose `build` returns one of these. Shape
letters are those of `ebft.rollout.records`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Float

from ebft.errors import PluginError
from ebft.lazy import Tensor
from ebft.parts.measurements import CorpusMeasurement, Measurement
from ebft.parts.splits import Splits
from ebft.rollout.records import Contexts, Document, Features, Rollouts, Terms

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@runtime_checkable
class DataSource(Protocol):
    """Reads texts and divides them into train and held-out."""

    def __call__(self) -> Splits: ...


@runtime_checkable
class Plan(Protocol):
    """Chooses the anchors of documents, and the length of rollouts."""

    @property
    def rollout_length(self) -> int:
        """G, the most tokens of a rollout."""
        ...

    @property
    def stop_at_eos(self) -> bool:
        """Whether a rollout ends with end-of-sequence, and so may be shorter than G."""
        ...

    @property
    def shortest_document(self) -> int:
        """Tokens that a document needs for one anchor and its reference."""
        ...

    def accepts(self, document: Document) -> bool:
        """Whether the document is long enough for at least one anchor."""
        ...

    def __call__(self, documents: Sequence[Document]) -> Contexts: ...


def known_plan(part: object) -> Plan | None:
    """Returns the part if it is itself a plan; None if it has to be built first."""
    return part if isinstance(part, Plan) else None


@runtime_checkable
class Sampler(Protocol):
    """Samples n rollouts after each context from the policy.

    The returned `contexts` are the object that the sampler was called with. A rollout depends only
    on the step, the recipe's seed, and its document, anchor and number, not on the batch or the
    number of processes (`ebft.rollout.streams`). Tokens are int64. With `contexts.stop_at_eos` the
    mask ends with the first end-of-sequence token, which it includes (`make_rollouts` does that).
    """

    n: int

    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts: ...

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:
        """Copies the policy's weights to the sampler after an optimizer step.

        Returns figures to log with those of the step, by name; {} if there are none.
        """
        ...


@runtime_checkable
class FeatureMap(Protocol):
    """Computes φ of rollouts and of their references: [P, n, D] and [P, m, D]; no gradients.

    Features of a lower precision are cast to float32, because their inner products are compared
    with each other.
    """

    def __call__(self, rollouts: Rollouts) -> Features: ...


def features_of(feature_map: FeatureMap, rollouts: Rollouts) -> Features:
    """Returns the map's features, in float32. Raises `PluginError` if it returns another type."""
    features = feature_map(rollouts)
    check_returned("feature_map", features, Features)
    return features.in_float32()


def check_returned(key: str, value: object, promised: type) -> None:
    """Raises `PluginError` if what the part at `key` returned is not of the promised type."""
    if not isinstance(value, promised):
        hint = ""
        if promised is Terms:
            hint = "; Terms.of_unary makes them of one score [P, n] for each rollout"
        raise PluginError(
            f"{key}: returned {type(value).__name__}, and must return {promised.__name__}{hint}"
        )


def check_call(key: str, built: Any, kind: type) -> Any:
    """Returns the built part at `key`. Raises `PluginError` if it cannot be called as `kind` is.

    A call with other arguments fails before the part runs, so its traceback does not have the part.
    """
    called = list(signature(kind.__call__).parameters.values())[1:]
    by_name = {it.name: it for it in called if it.kind is Parameter.KEYWORD_ONLY}
    by_place = [it for it in called if it.name not in by_name]
    listed = ", ".join([it.name for it in by_place] + [f"{name}=…" for name in by_name])
    if not callable(built):
        raise PluginError(
            f"{key}: {type(built).__name__} has no __call__; the run calls it with ({listed})"
        )
    try:
        takes = signature(built)
    except ValueError:  # one in C
        return built
    try:
        takes.bind(*by_place, **by_name)
    except TypeError as error:
        raise PluginError(
            f"{key}: {type(built).__name__} takes ({', '.join(takes.parameters)}), and the run "
            f"calls it with ({listed})"
        ) from error
    return built


@runtime_checkable
class HasFeaturesOfLengths(Protocol):
    """A feature map that computes features of several lengths of rollouts in one pass."""

    def of_lengths(self, rollouts: Rollouts, lengths: Sequence[int]) -> Sequence[Features]:
        """The features of `rollouts.first(length)`, for each of the lengths."""
        ...


def features_of_lengths(
    feature_map: FeatureMap, rollouts: Rollouts, lengths: Sequence[int]
) -> Sequence[Features]:
    """Returns features of the first `length` tokens of rollouts and references, for each length,
    in float32."""
    if isinstance(feature_map, HasFeaturesOfLengths):
        return [features.in_float32() for features in feature_map.of_lengths(rollouts, lengths)]
    return [features_of(feature_map, rollouts.first(length)) for length in lengths]


@runtime_checkable
class Transform(Protocol):
    """Transforms the features of a step: norms, whitening, projection."""

    def __call__(self, features: Features) -> Features: ...


@runtime_checkable
class Reward(Protocol):
    """Scores rollouts, term by term.

    `features` is None if and only if the reward's options say that it uses none (`uses_features`).
    """

    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms: ...


@runtime_checkable
class Baseline(Protocol):
    """Computes advantages: each rollout's reward minus its baseline.

    A baseline reduces the gradient's variance. The gradient stays unbiased if b_j leaves out every
    term that touches rollout j, which is why the input is the terms and not their sum.
    """

    def __call__(self, terms: Terms) -> Float[Tensor, "P n"]: ...


@runtime_checkable
class Evaluator(Protocol):
    """Measures a policy on documents, some of a set at a time, and each document by itself.

    The names of its measurements do not include the name of the set; the caller adds it.
    """

    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement | CorpusMeasurement]: ...
