"""The documents of a run: read from its data source, tokenised, and accepted by its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ebft.data.documents import Tokenized, tokenize
from ebft.errors import UserError
from ebft.evaluation.options import HELD_OUT
from ebft.interfaces import DataSource, Plan
from ebft.models.context_length import context_length
from ebft.models.vocabulary import embedded_tokens
from ebft.parts import Resources
from ebft.runs.model_recipe_options import ModelRecipeOptions
from ebft.splits import Example, Splits


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a run: those to train on, and those held out by the name of their set."""

    train: Tokenized
    evaluated: Mapping[str, Tokenized]


def make_documents(options: ModelRecipeOptions, resources: Resources, plan: Plan) -> Documents:
    """Reads, splits and tokenises the data. Raises `UserError` if the plan accepts no document."""
    splits = read_splits(options, resources)
    train = _tokenize(options, resources, plan, "train", splits.train)
    return Documents(train, held_out_documents(options, resources, plan, splits))


def check_context_length(length: int, resources: Resources, *, key: str) -> None:
    """Raises `UserError` naming `key` for a length that the policy cannot read."""
    most = context_length(resources.policy.config)
    if most is not None and length > most:
        raise UserError(
            f"{key} = {length}: the model reads {most} tokens at most; set {key}={most} or less"
        )


def read_splits(options: ModelRecipeOptions, resources: Resources) -> Splits:
    """The texts of the recipe's data source. Raises `UserError` if the policy cannot read any as
    long as the recipe allows them to be."""
    check_context_length(options.documents.length, resources, key="documents.length")
    source: DataSource = options.data.build(resources)
    return source()


def held_out_documents(
    options: ModelRecipeOptions, resources: Resources, plan: Plan, splits: Splits
) -> dict[str, Tokenized]:
    """What is not trained on, by the name of its set, out-of-distribution if there is any."""
    held_out, out_of_distribution = HELD_OUT
    sets = {held_out: splits.held_out}
    if splits.out_of_distribution:
        sets[out_of_distribution] = splits.out_of_distribution
    return {name: _tokenize(options, resources, plan, name, texts) for name, texts in sets.items()}


def _tokenize(
    options: ModelRecipeOptions,
    resources: Resources,
    plan: Plan,
    split: str,
    examples: Sequence[Example],
) -> Tokenized:
    return tokenize(
        examples,
        resources.tokenizer,
        options.documents,
        plan,
        split=split,
        reads=context_length(resources.policy.config),
        embeds=embedded_tokens(resources.policy),
    )
