"""Pictures of a run: its figures over steps, and its figures over the length of completions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ebft.evaluation.history import Evaluations
from ebft.files import write_whole
from ebft.parts.measurements import Measurement
from ebft.report.style import Picture, bars, png, style
from ebft.scoring.interval import TOO_FEW, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 4
"""The largest number of panels in a row."""
STEP_METRIC = {"held-out CE": "ce", "held-out CFM": "cfm"}
"""The metric of steps that is drawn below a held-out measurement."""
SMOOTH = 8
"""The number of steps in the moving average of the lower panels."""
ORANGE = "#c2571a"
COLOURS = ("#8a94a0", "#1f5fa8")
"""The colours of the first and of the last evaluation."""


def plot_curves(history: Evaluations, steps: Sequence[Mapping[str, float]]) -> Picture:
    """Draws two panels for each measurement, except points of curves over lengths.

    The upper panel shows the held-out figure with the 95 % interval of its *change*, which is much
    narrower than that of the figure. The lower panel shows the documents trained on.
    """
    names = [name for name, measured in history.first.items() if measured.at is None]
    columns = min(max(len(names), 1), ACROSS)
    rows = max(ceil(len(names) / columns), 1)
    figure = Picture(figsize=(4.8 * columns, 5.2 * rows), layout="constrained")
    grid = figure.subplots(
        2 * rows, columns, squeeze=False, sharex=True, height_ratios=[3, 2] * rows
    )
    panels = zip(grid[::2].flatten(), grid[1::2].flatten(), strict=True)
    for name, (above, below) in zip_longest(names, panels):
        if name is None:
            above.set_visible(False)
            below.set_visible(False)
            continue
        draw_held_out(above, history, name)
        metric = STEP_METRIC.get(name)
        values = [step[metric] for step in steps if metric in step] if metric else []
        if values:
            draw_steps(below, range(1, len(values) + 1), values)
            below.set_xlabel("optimizer steps")
        else:
            below.set_visible(False)
    return figure


def draw_held_out(axes: Axes, history: Evaluations, name: str) -> None:
    """Draws a held-out figure over steps, with the 95 % interval of its change."""
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


def draw_steps(
    axes: Axes, done: Sequence[int], values: Sequence[float], *, title: str = ""
) -> None:
    """Draws a metric of steps: pale, with its moving average, if there are enough of them."""
    few = len(values) <= SMOOTH
    axes.plot(
        done, values, color=ORANGE if few else "#b9c4d0", linewidth=1.6 if few else 1,
        marker="o" if few else None, markersize=4, label="training documents, each step",
    )  # fmt: skip
    if not few:
        means = [sum(values[i - SMOOTH : i]) / SMOOTH for i in range(SMOOTH, len(values) + 1)]
        label = f"mean of {SMOOTH} steps"
        axes.plot(done[SMOOTH - 1 :], means, color=ORANGE, linewidth=1.6, label=label)
    _style(axes, title, "")


def _style(axes: Axes, title: str, unit: str) -> None:
    style(axes, title=title, y=unit)
    axes.legend(fontsize=8, frameon=False)


def plot_lengths(history: Evaluations, file: Path) -> bool:
    """Writes a PNG with a panel for each curve over the length of completions.

    Returns False, and writes nothing, if there is none.
    """
    names = list(curves_over_length(history.last))
    if not names:
        return False
    figure = Figure(figsize=(5.2 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, axes in zip(names, panels, strict=True):
        draw_lengths(axes, history, name)
    write_whole(file, png(figure))
    return True


def draw_lengths(axes: Axes, history: Evaluations, name: str) -> None:
    """Draws a curve over the length of completions, before and after training."""
    evaluations = {"before": history.first, "after": history.last}
    if len(history) == 1:
        evaluations = {"measured": history.last}
    unit = ""
    for (label, measured), colour in zip(
        evaluations.items(), COLOURS[-len(evaluations) :], strict=True
    ):
        points = curves_over_length(measured)[name]
        unit = points[0].unit
        intervals = [mean_interval(point) for point in points]
        too_few = any(interval.too_few for interval in intervals)
        axes.errorbar(
            [point.at or 0 for point in points], [interval.mean for interval in intervals],
            bars(intervals),
            color=colour, marker="o", markersize=4, capsize=3, linewidth=1.8,
            label=f"{label} ({TOO_FEW})" if too_few else f"{label}, 95 % interval",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    style(axes, title=name, x="tokens of the completion", y=unit)
    axes.legend(fontsize=8, frameon=False)


def curves_over_length(measured: Mapping[str, Measurement]) -> dict[str, list[Measurement]]:
    """The points of each curve over the length of completions, in order."""
    found: defaultdict[str, list[Measurement]] = defaultdict(list)
    for name, measurement in measured.items():
        if measurement.at is not None:
            found[family(name, measurement.at)].append(measurement)
    return {name: sorted(points, key=lambda point: point.at or 0) for name, points in found.items()}


def family(name: str, at: int) -> str:
    """The name of a curve: the name of a measure at one length, without that length.

    >>> family("held-out CFM of 8 tokens (layer 8)", 8)
    'held-out CFM of … tokens (layer 8)'
    """
    of_tokens = f"of {at} tokens"
    if of_tokens in name:
        return name.replace(of_tokens, "of … tokens", 1)
    return name.replace(str(at), "…", 1)
