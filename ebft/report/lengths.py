"""A picture of the figures that make a curve over the length of completions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from ebft.evaluation.history import History
from ebft.interfaces import Measurement
from ebft.scoring.interval import mean_interval

COLOURS = ("#8a94a0", "#1f5fa8")
"""Of the first evaluation, and of the last."""


def plot_lengths(history: History, file: Path) -> bool:
    """Writes a PNG with a panel for each set of documents; False if there is no such figure."""
    evaluations = {"before": history.first, "after": history.last}
    if len(history) == 1:
        evaluations = {"measured": history.last}
    sets = list(curves(history.last))
    if not sets:
        return False
    figure = Figure(figsize=(5.2 * len(sets), 3.6), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for name, axes in zip(sets, panels, strict=True):
        for (label, measured), colour in zip(
            evaluations.items(), COLOURS[-len(evaluations) :], strict=True
        ):
            points = curves(measured)[name]
            intervals = [mean_interval(point) for point in points]
            axes.errorbar(
                [point.at for point in points], [interval.mean for interval in intervals],
                [interval.half_width for interval in intervals],
                color=colour, marker="o", markersize=4, capsize=3, linewidth=1.8,
                label=f"{label}, 95 % interval",
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("tokens of the completion")
        axes.set_ylabel(f"CFM, {points[0].unit}")
        axes.set_title(name, loc="left", fontsize=11, fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e9ed")
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(file, dpi=150)
    return True


def curves(measured: Mapping[str, Measurement]) -> dict[str, list[Measurement]]:
    """The points of each set's curve, by length."""
    found: defaultdict[str, list[Measurement]] = defaultdict(list)
    for measurement in measured.values():
        if measurement.at is not None:
            found[measurement.of].append(measurement)
    return {name: sorted(points, key=lambda point: point.at or 0) for name, points in found.items()}
