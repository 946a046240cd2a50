"""A picture of a run: held-out figures above, the steps' own below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ebft.evaluation.history import History
from ebft.files import write_whole
from ebft.report.style import bars, png, style
from ebft.scoring.interval import TOO_FEW, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 4
"""Most panels side by side."""
STEP_METRIC = {"held-out CE": "ce", "held-out CFM": "cfm"}
"""Which metric of the steps is drawn below which held-out measurement."""
SMOOTH = 8
"""Steps that the lower panels' line is a mean of."""


def plot_curves(history: History, steps: Sequence[Mapping[str, float]], file: Path) -> None:
    """Writes a PNG with two panels a measurement, points of a curve over lengths aside.

    Above, the held-out figure with the 95 % interval of its *change*: documents differ from each
    other far more than one document does before and after. Below, the documents trained on.
    """
    names = [name for name, measured in history.first.items() if measured.at is None]
    columns = min(max(len(names), 1), ACROSS)
    rows = max(ceil(len(names) / columns), 1)
    figure = Figure(figsize=(4.8 * columns, 5.2 * rows), layout="constrained")
    grid = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True, height_ratios=[3, 2] * rows
    )
    panels = zip(grid[::2].flatten(), grid[1::2].flatten(), strict=True)
    for name, (above, below) in zip_longest(names, panels):
        if name is None:
            above.set_visible(False)
            below.set_visible(False)
            continue
        _held_out(above, history, name)
        metric = STEP_METRIC.get(name)
        values = [step[metric] for step in steps if metric in step] if metric else []
        if values:
            _each_step(below, values)
        else:
            below.set_visible(False)
    write_whole(file, png(figure))


def _held_out(axes: Axes, history: History, name: str) -> None:
    start = mean_interval(history.first[name]).mean
    done, changes = zip(*history.changes(name), strict=True)
    too_few = any(change.too_few for change in changes)
    axes.axhline(start, color="#8a94a0", linewidth=1, linestyle="--", label="before")
    axes.errorbar(
        done, [start + change.mean for change in changes],
        bars(changes),
        color="#1f5fa8", marker="o", markersize=4, capsize=3, linewidth=1.8,
        label=f"held-out ({TOO_FEW})" if too_few else "held-out, 95 % interval of the change",
    )  # fmt: skip
    _style(axes, name, history.first[name].unit)


def _each_step(axes: Axes, values: Sequence[float]) -> None:
    done = range(1, len(values) + 1)
    axes.plot(done, values, color="#b9c4d0", linewidth=1, label="training documents, each step")
    if len(values) > SMOOTH:
        means = [sum(values[i - SMOOTH : i]) / SMOOTH for i in range(SMOOTH, len(values) + 1)]
        label = f"mean of {SMOOTH} steps"
        axes.plot(done[SMOOTH - 1 :], means, color="#c2571a", linewidth=1.6, label=label)
    _style(axes, "", "")
    axes.set_xlabel("optimizer steps")


def _style(axes: Axes, title: str, unit: str) -> None:
    style(axes, title=title, y=unit)
    axes.legend(fontsize=8, frameon=False)
