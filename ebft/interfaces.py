"""What each interchangeable part is, as the training loop sees it: a plain object with one call.

A part registers a frozen options model (`ebft.Part`) whose `build` returns one of these. Shape
letters are those of `ebft.rollout.records`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from ebft.errors import PluginError
from ebft.rollout.records import Contexts, Document, Features, Rollouts, Terms

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Example:
    """One text of a data source: `prompt` is empty for raw text. `name` is unique in the source.

    `check` is what a verifiable reward holds a rollout against (unit tests, an answer), if any.
    `cluster` names the larger thing that the text is a part of, a file say: held out as a whole.
    """

    name: str
    completion: str
    prompt: str = ""
    check: str = ""
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Splits:
    """The examples to train on and those held out; no file or row is in both.

    `out_of_distribution` are held-out examples of another kind than train has (another package,
    another sort of task), none if the source cannot tell.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    out_of_distribution: Sequence[Example] = ()


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of an evaluation with its value for every document, for intervals.

    `weight` counts what each value is a mean over (tokens, contexts), so that the weighted mean
    over documents is the figure itself; it is 0 for a document that cannot be measured, whatever
    its value. `at` is where the figure stands on a curve that several make: the tokens of a
    completion. A `share` is of documents, between 0 and 1. `measure` fills in the rest: `of` is the
    name of the evaluation set, and `clusters` numbers what each document is a part of
    (`Document.cluster`); None if each is a whole.
    """

    name: str
    unit: str
    value: Float[Tensor, " B"]
    weight: Float[Tensor, " B"]
    at: int | None = None
    share: bool = False
    of: str = ""
    clusters: Int[Tensor, " B"] | None = None


@runtime_checkable
class Stateful(Protocol):
    """A built part, of whatever kind, that remembers something from one step to the next.

    With these two methods it is resumed exactly. `state_dict` is made of dicts (keys: text or whole
    numbers), lists, tuples, tensors, numbers, text, True, False and None; its tensors may be those
    in use. A part that holds other parts passes theirs on (`part_states`, `load_part_states`).
    """

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on as the part that `state_dict` was called on would have."""
        ...


def part_states(parts: Sequence[object]) -> dict[str, Any]:
    """The states of those parts that have one, by their place."""
    return {str(i): part.state_dict() for i, part in enumerate(parts) if isinstance(part, Stateful)}


def load_part_states(parts: Sequence[object], states: Mapping[str, Any]) -> None:
    """Gives parts the states that `part_states` read off their likes.

    Raises `ValueError` if other parts have state now.
    """
    stateful = {str(i): part for i, part in enumerate(parts) if isinstance(part, Stateful)}
    if stateful.keys() != states.keys():
        raise ValueError(
            f"parts {sorted(stateful)} have state, and it is given for {sorted(states)}"
        )
    for place, part in stateful.items():
        part.load_state_dict(states[place])


@dataclass(frozen=True, slots=True)
class CorpusMeasurement:
    """A figure of all documents together, such as BLEU: `figure` of the sum of their `statistics`.

    `weight` is 0 for a document that cannot be measured, whatever its statistics; else 1.
    """

    name: str
    unit: str
    statistics: Float[Tensor, "B K"]
    weight: Float[Tensor, " B"]
    figure: Callable[[Sequence[float]], float]


@runtime_checkable
class DataSource(Protocol):
    """Reads texts and divides them into train and held-out."""

    def __call__(self) -> Splits: ...


@runtime_checkable
class Plan(Protocol):
    """Chooses a document's anchors, and how long rollouts are."""

    @property
    def rollout_length(self) -> int:
        """G, most tokens of a rollout."""
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


@runtime_checkable
class Sampler(Protocol):
    """Samples n rollouts after each context from the policy.

    The rollouts are of the very contexts that it is given. They depend on the step, the recipe's
    seed, and their own document, anchor and number alone, so that neither batches nor processes
    change them (`ebft.rollout.streams`). Tokens are int64. With `contexts.stop_at_eos` the mask
    ends with the first end-of-sequence token, which it includes: `make_rollouts` does that.
    """

    n: int

    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts: ...

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:
        """Take over the policy's weights after an optimizer step.

        Returns figures about it to log with the step's own, by name; {} if there is nothing to say.
        """
        ...


@runtime_checkable
class SamplerOptions(Protocol):
    """What a recipe's checks read of a sampler's options: how many rollouts each context gets."""

    n: int


@runtime_checkable
class FeatureMap(Protocol):
    """Computes φ of rollouts and of their references: [P, n, D] and [P, m, D]; no gradients.

    Inner products of features are compared with each other, so those in less than float32 are
    taken to it before anything is computed of them.
    """

    def __call__(self, rollouts: Rollouts) -> Features: ...


def features_of(feature_map: FeatureMap, rollouts: Rollouts) -> Features:
    """What a feature map gives, in float32. Raises `PluginError` if it is no `Features`."""
    features = feature_map(rollouts)
    check_returned("feature_map", features, Features)
    return features.in_float32()


def check_returned(key: str, value: object, promised: type) -> None:
    """Raises `PluginError` for what the part at `key` returned, if it is of another type."""
    if not isinstance(value, promised):
        hint = ""
        if promised is Terms:
            hint = "; Terms.of_unary makes them of one score [P, n] for each rollout"
        raise PluginError(
            f"{key}: returned {type(value).__name__}, and must return {promised.__name__}{hint}"
        )


@runtime_checkable
class HasFeaturesOfLengths(Protocol):
    """A feature map that has features of rollouts' first tokens cheaper than one by one."""

    def of_lengths(self, rollouts: Rollouts, lengths: Sequence[int]) -> Sequence[Features]:
        """What the map gives of `rollouts.first(length)`, for each of the lengths."""
        ...


def features_of_lengths(
    feature_map: FeatureMap, rollouts: Rollouts, lengths: Sequence[int]
) -> Sequence[Features]:
    """Features of the first tokens of rollouts and references for each length, in float32."""
    if isinstance(feature_map, HasFeaturesOfLengths):
        return [features.in_float32() for features in feature_map.of_lengths(rollouts, lengths)]
    return [features_of(feature_map, rollouts.first(length)) for length in lengths]


@runtime_checkable
class HasBaseDepth(Protocol):
    """Options of a feature map that say how much of the base model it runs, for estimates."""

    def base_depth(self) -> float:
        """The fraction of the base model's layers that it needs; 0 if it has no use for them."""
        ...


def base_depth(feature_map: object) -> float:
    """`HasBaseDepth.base_depth` of a feature map's options; all layers of one that does not say."""
    return feature_map.base_depth() if isinstance(feature_map, HasBaseDepth) else 1.0


@runtime_checkable
class Transform(Protocol):
    """Changes features as a whole: norms, whitening, projection."""

    def __call__(self, features: Features) -> Features: ...


@runtime_checkable
class Reward(Protocol):
    """Scores rollouts, term by term.

    `features` is None where the reward's options say that it uses none (`uses_features`), and only
    there.
    """

    def __call__(self, rollouts: Rollouts, features: Features | None) -> Terms: ...


@runtime_checkable
class RewardOptions(Protocol):
    """What a recipe's checks read of a reward's options."""

    def pairwise(self) -> bool:
        """Whether it compares rollouts with each other, and so needs n > 1."""
        ...


NO_PAIRWISE = (
    "{} does not say whether it compares rollouts; give the class `def pairwise(self) -> bool`"
)
"""What is said of a reward whose options are no `RewardOptions`."""


def compares_rollouts(reward: object) -> bool:
    """What a reward's options say with `pairwise`; False of none, and of one that does not say."""
    return isinstance(reward, RewardOptions) and reward.pairwise()


@runtime_checkable
class HasUsesFeatures(Protocol):
    """Options of a reward that say whether it looks at features."""

    def uses_features(self) -> bool:
        """False: the recipe needs no feature map, and none is computed."""
        ...


def uses_features(reward: object) -> bool:
    """Whether a reward's options ask for features; a reward that does not say is given them."""
    return not isinstance(reward, HasUsesFeatures) or reward.uses_features()


@runtime_checkable
class Baseline(Protocol):
    """Advantages: each rollout's reward less what was to be expected without it.

    Subtracting lessens the gradient's variance. It stays unbiased if what is subtracted from r_j
    leaves out every term that touches rollout j, which is why it sees the terms and not their sum.
    """

    def __call__(self, terms: Terms) -> Float[Tensor, "P n"]: ...


@runtime_checkable
class NeedsRollouts(Protocol):
    """Options of a baseline that is of no use with fewer rollouts of a context."""

    @property
    def fewest_rollouts(self) -> int: ...


@runtime_checkable
class Evaluator(Protocol):
    """Measures a policy on documents, some of a set at a time: each by itself.

    The names of its measurements do not say which documents those are; whoever calls it does.
    """

    def __call__(
        self, policy: PreTrainedModel, documents: Sequence[Document]
    ) -> Sequence[Measurement | CorpusMeasurement]: ...
