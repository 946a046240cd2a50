"""`check_data`: does a source read the same texts every time, and none in two splits?"""

from __future__ import annotations

from collections.abc import Sequence

from ebft.parts.interfaces import DataSource
from ebft.parts.part import Part, Resources
from ebft.parts.splits import Example, Splits
from ebft.testing.common import check_options, require
from ebft.testing.tiny import tiny_resources

LOOKED_AT = 10_000
"""The most examples of each split that are checked: the first ones."""


def check_data(part: Part, resources: Resources | None = None) -> None:
    """Checks the texts that a data source reads.

    It checks that there are some, to train on or held out; that names are unique; that no text is
    in two splits; and that it reads the same texts in the same order when built again. Raises
    `AssertionError`.
    """
    check_options(part)
    resources = tiny_resources() if resources is None else resources
    source = part.build(resources)
    require(part, isinstance(source, DataSource), "build() returns something to call")
    splits, again = source(), part.build(resources)()
    require(part, isinstance(splits, Splits), "it returns ebft.Splits")
    require(part, len(splits.train) + len(splits.held_out) > 0, "train or held_out has texts")
    named = {
        name: list(_first(getattr(splits, name)))
        for name in ("train", "held_out", "out_of_distribution")
    }
    for name, examples in named.items():
        require(
            part,
            all(isinstance(example, Example) for example in examples),
            f"{name} consists of ebft.Example",
        )
        require(
            part,
            all(example.completion for example in examples),
            f"every example of {name} has a text",
        )
        require(
            part,
            examples == list(_first(getattr(again, name))),
            f"built again, it gives the same {name} in the same order",
        )
    everything = [example for examples in named.values() for example in examples]
    names = [example.name for example in everything]
    require(part, len(set(names)) == len(names), "names are unique")
    seen: dict[tuple[str, str], str] = {}
    for split, examples in named.items():
        for example in examples:
            text = (example.prompt, example.completion)
            require(
                part,
                seen.setdefault(text, split) == split,
                f"no text is in two splits, as {example.name} is",
            )


def _first(examples: Sequence[Example]) -> Sequence[Example]:
    return examples[:LOOKED_AT] if len(examples) > LOOKED_AT else examples
