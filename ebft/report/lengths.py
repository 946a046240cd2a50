"""A picture of the figures that make a curve over the length of completions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from ebft.evaluation.history import History
from ebft.files import write_whole
from ebft.measurements import Measurement
from ebft.report.names import family
from ebft.report.style import bars, png, style
from ebft.scoring.interval import TOO_FEW, mean_interval

COLOURS = ("#8a94a0", "#1f5fa8")
"""For the first evaluation, and for the last."""


def plot_lengths(history: History, file: Path) -> bool:
    """Writes a PNG with a panel for each such curve of each set; False if there is none."""
    evaluations = {"before": history.first, "after": history.last}
    if len(history) == 1:
        evaluations = {"measured": history.last}
    names = list(curves(history.last))
    if not names:
        return False
    figure = Figure(figsize=(5.2 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, axes in zip(names, panels, strict=True):
        for (label, measured), colour in zip(
            evaluations.items(), COLOURS[-len(evaluations) :], strict=True
        ):
            points = curves(measured)[name]
            intervals = [mean_interval(point) for point in points]
            too_few = any(interval.too_few for interval in intervals)
            axes.errorbar(
                [point.at for point in points], [interval.mean for interval in intervals],
                bars(intervals),
                color=colour, marker="o", markersize=4, capsize=3, linewidth=1.8,
                label=f"{label} ({TOO_FEW})" if too_few else f"{label}, 95 % interval",
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        style(axes, title=name, x="tokens of the completion", y=points[0].unit)
        axes.legend(fontsize=8, frameon=False)
    write_whole(file, png(figure))
    return True


def curves(measured: Mapping[str, Measurement]) -> dict[str, list[Measurement]]:
    """The points of each curve, by length."""
    found: defaultdict[str, list[Measurement]] = defaultdict(list)
    for name, measurement in measured.items():
        if measurement.at is not None:
            found[family(name, measurement.at)].append(measurement)
    return {name: sorted(points, key=lambda point: point.at or 0) for name, points in found.items()}
