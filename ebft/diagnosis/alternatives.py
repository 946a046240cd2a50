"""The recipe and its variations: `--vary sampler.n=4,16 transforms=[],[l2]`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ebft.config.load import load_recipe
from ebft.errors import UserError
from ebft.parts.part import Resources
from ebft.runs.estimate import StepEstimate
from ebft.runs.options import FineTuneOptions
from ebft.runs.setup import make_rollout_parts
from ebft.training.parts import RolloutParts

FIXED = ("data", "documents", "model", "seed")
"""Sections that all alternatives share: they are measured on the same documents and weights."""
OPENING, CLOSING, QUOTES = "[{", "]}", "'\""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A recipe to measure, and what tells it apart; the recipe as it stands has no override."""

    label: str
    override: str | None
    options: FineTuneOptions

    def build(self, resources: Resources) -> RolloutParts:
        """Builds the parts that sample and score its rollouts."""
        options = self.options
        parts = make_rollout_parts(
            resources, options.sampler, options.feature_map, options.transforms, options.reward,
            options.baseline,
        )  # fmt: skip
        assert parts is not None
        return parts

    def estimate(self) -> StepEstimate | None:
        """Its cost; None if that of the model or of the plan cannot be known."""
        try:
            return StepEstimate.of(self.options)
        except ValueError:
            return None


def load_alternatives(
    file: Path, overrides: Sequence[str], vary: Sequence[str]
) -> list[Alternative]:
    """Returns the recipe as it is, and with each of the variations.

    A value that the recipe has already is left out. Raises `UserError` for a recipe that trains
    nothing, for a mistake in a variation, and for a variation of the documents or of the model.
    """
    recipe = load_recipe(file, overrides)
    if not isinstance(recipe.options, FineTuneOptions):
        raise UserError(
            f"{file}: recipe = {recipe.options.recipe}: trains nothing, so it has no gradient; "
            "give a recipe of the kind finetune"
        )
    found = [Alternative("as it is", None, recipe.options)]
    for word in vary:
        for override in variations(word):
            options = load_recipe(file, [*overrides, override]).options
            for section in FIXED:
                if getattr(options, section) != getattr(recipe.options, section):
                    raise UserError(
                        f"--vary {override}: alternatives are measured on the same documents and "
                        f"weights, so {section} cannot differ; run ebft noise once for each"
                    )
            if all(options != one.options for one in found):
                found.append(Alternative(label_of(override), override, options))
    return found


def variations(word: str) -> Iterator[str]:
    """The overrides of `key=value,value`; commas in brackets and quotes belong to a value.

    >>> list(variations("sampler.n=4,16"))
    ['sampler.n=4', 'sampler.n=16']
    >>> list(variations("transforms=[],[l2, gram]"))
    ['transforms=[]', 'transforms=[l2, gram]']
    """
    key, equals, values = word.partition("=")
    if not (key and equals and values) or key.startswith("~"):
        raise UserError(f"--vary {word!r}: a variation is key=value,value, like sampler.n=4,16")
    for value in _apart(values):
        if not value.strip():
            raise UserError(f"--vary {word!r}: there is nothing between two commas")
        yield f"{key}={value.strip()}"


def label_of(override: str) -> str:
    """The override with the names of parts alone.

    >>> label_of("transforms=[{_component_: l2}, {_component_: gram}]")
    'transforms=[l2, gram]'
    """
    return re.sub(r"\{_component_: *(\w+)\}", r"\1", override)


def _apart(values: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in values:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in QUOTES:
            quote = letter
        depth += (not quote) * ((letter in OPENING) - (letter in CLOSING))
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
