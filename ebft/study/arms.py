"""Arms, which a study compares: labelled lists of overrides, made from the study's options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ebft.errors import WORDS, UserError
from ebft.printable import printable
from ebft.study.contents import ArmName
from ebft.study.options import Levels, StudyOptions

REFERENCE = "reference"
"""The label of the arm that changes none of the keys of `one_at_a_time`."""


@dataclass(frozen=True, slots=True)
class Level:
    """One value of a factor, and its label."""

    label: str
    value: Any


@dataclass(frozen=True, slots=True)
class Arm:
    """A recipe of the study without its seed: a base recipe and overrides.

    `starts_from` is the label of the arm whose trained model it starts from, if it does.
    """

    name: ArmName
    base: Path | None
    overrides: Sequence[tuple[str, Any]]
    starts_from: str | None = None

    @property
    def label(self) -> str:
        return self.name.label


def arms(options: StudyOptions) -> list[Arm]:
    """All arms, in the order of the file. Raises `UserError` as `levels` does."""
    grid = {key: levels(key, values) for key, values in options.grid.items()}
    singly = {key: levels(key, values) for key, values in options.one_at_a_time.items()}
    short = short_names([*grid, *singly])
    found = []
    for variant, base, overrides, starts_from in _variants(options):
        for chosen in _choices(grid, singly):
            names = [f"{short[key]}={level.label}" for key, level in chosen.items()]
            unnamed = REFERENCE if grid or singly else "base"
            name = ArmName(
                label=", ".join(filter(None, [variant, *names])) or unnamed,
                variant=variant,
                levels={key: level.label for key, level in chosen.items()},
            )
            own = [(key, level.value) for key, level in chosen.items()]
            start = starts_from and ", ".join([printable(starts_from), *names])
            found.append(Arm(name, base, [*overrides, *own], start))
    return found


def factors(options: StudyOptions) -> dict[str, list[str]]:
    """The keys of the grid and of `one_at_a_time`, with the labels of their values in order."""
    found: dict[str, list[str]] = {}
    # A key in both usually has all of its values in `one_at_a_time`, and some of them in the grid.
    for key, values in [*options.one_at_a_time.items(), *options.grid.items()]:
        labels = [level.label for level in levels(key, values)]
        found[key] = list(dict.fromkeys([*found.get(key, []), *labels]))
    return found


def levels(key: str, values: Levels) -> list[Level]:
    """The values of a factor with their labels: the given ones, or short forms of the values.

    Raises `UserError` if there are no values, or if two would have the same label.
    """
    if not values:
        raise UserError(f"{key} = {values}: has no values to compare; give some, or leave it out")
    if isinstance(values, dict):
        found = [Level(printable(label), value) for label, value in values.items()]
    else:
        found = [Level(printable(_label(value)), value) for value in values]
    if len({level.label for level in found}) < len(found):
        labels = ", ".join(level.label for level in found)
        raise UserError(
            f"{key}: two of its values would have the same label ({labels}); "
            "give them labels: a mapping of label to value"
        )
    return found


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Shortens each key to its last words, as few as are unique: `reward.n` and `sampler.n` stay
    as they are, and `reward.diversity` becomes `diversity`."""
    distinct = list(dict.fromkeys(keys))

    def tail(key: str, words: int) -> str:
        return ".".join(key.split(".")[-words:])

    short = {}
    for key in distinct:
        words = 1
        while sum(tail(other, words) == tail(key, words) for other in distinct) > 1:
            words += 1
        short[key] = tail(key, words)
    return short


def _variants(
    options: StudyOptions,
) -> Iterator[tuple[str, Path | None, list[tuple[str, Any]], str | None]]:
    common = list(options.overrides.items())
    if not options.variants:
        yield "", options.base_recipe, common, None
    for name, variant in options.variants.items():
        yield (
            printable(name),
            variant.base_recipe or options.base_recipe,
            [*common, *variant.overrides.items()],
            variant.starts_from,
        )


def _choices(
    grid: Mapping[str, Sequence[Level]], singly: Mapping[str, Sequence[Level]]
) -> Iterator[dict[str, Level]]:
    if singly or not grid:
        yield {}
    for key, values in singly.items():
        for level in values:
            yield {key: level}
    if grid:
        for combination in product(*grid.values()):
            yield dict(zip(grid, combination, strict=True))


def _label(value: Any) -> str:
    match value:
        case {"_component_": str(component)}:
            return component.rpartition(".")[2]
        case bool() | None:
            return WORDS[value]
        case []:
            return "none"
        case list():
            return "+".join(map(_label, value))
        case dict():
            return ",".join(f"{key}={_label(item)}" for key, item in value.items())
        case _:
            return str(value)
