"""What two models wrote after the same contexts: as a table, as lines of a file, as a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path

import torch
from rich.table import Table

from ebft.files import write_whole
from ebft.printable import cut_short
from ebft.report.page import render
from ebft.scoring.interval import Interval, difference

FEW = 2
"""Rollouts of each model in the table of a terminal."""
CONTEXT_LETTERS = 60
"""The last letters of a context in that table."""
LETTERS = 120
"""The first letters of a text in that table."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A rollout as text. `alignment` is the cosine of its features with those of the reference, and
    `reward` is the recipe's; None without a reference, or without a part that gives it."""

    text: str
    alignment: float | None
    reward: float | None


@dataclass(frozen=True, slots=True)
class SampledContext:
    """A context with its reference, if there is one, and the rollouts of each model by its role.

    Contexts of one `cluster` are not independent.
    """

    document: str
    cluster: int
    context: str
    reference: str | None
    rollouts: Mapping[str, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Samples:
    """All contexts. `models` are the names of the models by role, such as `base`, and `settings`
    say how it was sampled and scored."""

    title: str
    models: Mapping[str, str]
    settings: Mapping[str, str]
    contexts: Sequence[SampledContext]

    @property
    def roles(self) -> list[str]:
        return list(self.models)

    def rows(self) -> list[dict[str, object]]:
        """A row for each rollout of each model, for a data frame."""
        return [
            {
                "document": one.document, "context": one.context, "reference": one.reference,
                "model": role, **asdict(sample),
            }
            for one in self.contexts
            for role in self.roles
            for sample in one.rollouts[role]
        ]  # fmt: skip


def mean_change(
    contexts: Sequence[SampledContext],
    roles: Sequence[str],
    figure: Callable[[Sample], float | None],
) -> tuple[list[float], Interval] | None:
    """The mean of a figure for each of two roles, and the change from the first to the second with
    its 95 % interval over contexts; None if no context has the figure."""
    values, clusters = [], []
    for one in contexts:
        found = [[figure(sample) for sample in one.rollouts[role]] for role in roles]
        known = [[value for value in of_role if value is not None] for of_role in found]
        if all(known):
            values.append([fsum(of_role) / len(of_role) for of_role in known])
            clusters.append(one.cluster)
    if not values:
        return None
    before, after = torch.tensor(values, dtype=torch.float64).T
    ones = torch.ones_like(before)
    change = difference([(after, ones)], [(before, ones)], clusters=torch.tensor(clusters))
    return [float(before.mean()), float(after.mean())], change


def summary(samples: Samples) -> list[list[str]]:
    """A row for the alignment and for the reward, if there are any: its mean for each model, and
    the change."""
    rows = []
    figures: dict[str, Callable[[Sample], float | None]] = {
        "alignment": lambda sample: sample.alignment,
        "reward": lambda sample: sample.reward,
    }
    for name, figure in figures.items():
        if (found := mean_change(samples.contexts, samples.roles, figure)) is not None:
            means, change = found
            shown = [f"{mean:+.4f}" for mean in means]
            rows.append([name, *shown, f"{change.mean:+.4f} {change.plus_minus}"])
    return rows


def samples_table(samples: Samples) -> Table:
    """A row for each context, with a few rollouts of each model."""
    table = Table(title=samples.title, title_justify="left", show_lines=True)
    table.add_column("context (end)", ratio=3, overflow="fold")
    has_references = any(one.reference is not None for one in samples.contexts)
    if has_references:
        table.add_column("reference", ratio=2, overflow="fold")
    for role in samples.roles:
        table.add_column(role, ratio=3, overflow="fold")
    if any(sample.alignment is not None for one in samples.contexts for it in
           one.rollouts.values() for sample in it):  # fmt: skip
        table.caption = (
            "before a text: its alignment, the cosine of its features with the reference's"
        )
    for one in samples.contexts:
        cells = [repr(one.context[-CONTEXT_LETTERS:])]
        if has_references:
            cells.append("–" if one.reference is None else _quoted(one.reference))
        cells += ["\n".join(map(_line, one.rollouts[role][:FEW])) for role in samples.roles]
        table.add_row(*cells)
    return table


def summary_of_samples(samples: Samples) -> Table | None:
    """The means of alignment and reward; None if nothing was compared with a reference."""
    if not (rows := summary(samples)):
        return None
    table = Table(title="means (change ± 95 %)", title_justify="left", show_edge=False)
    table.add_column("")
    for heading in (*samples.roles, "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def samples_page(samples: Samples) -> str:
    """Returns the page as one HTML file that needs no other."""
    return render(
        "samples.html",
        title=samples.title,
        models=samples.models,
        settings=samples.settings,
        headings=["", *samples.roles, "change, ± 95 %"],
        rows=[[(cell, False) for cell in row] for row in summary(samples)],
        contexts=samples.contexts,
    )


def write_samples(samples: Samples, file: Path) -> None:
    """Writes the contexts as JSON lines to `file`, and the page beside it as .html."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_as_json(one), ensure_ascii=False) for one in samples.contexts]
    write_whole(file, "".join(f"{line}\n" for line in lines))
    write_whole(file.with_suffix(".html"), samples_page(samples))


def _as_json(one: SampledContext) -> dict[str, object]:
    return {
        "document": one.document,
        "context": one.context,
        "reference": one.reference,
        **{role: [asdict(it) for it in found] for role, found in one.rollouts.items()},
    }


def _line(sample: Sample) -> str:
    known = "" if sample.alignment is None else f"{sample.alignment:+.2f} "
    return f"{known}{_quoted(sample.text)}"


def _quoted(text: str) -> str:
    return repr(cut_short(text, LETTERS))
