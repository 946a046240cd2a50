"""A picture of a run: held-out figures and the step's own, over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ebft.evaluation.history import History

TRAINING_CURVE = {"held-out CE": "ce", "held-out CFM": "cfm"}
"""Which metric of the steps is drawn behind which held-out measurement."""


def plot_curves(history: History, steps: Sequence[Mapping[str, float]], file: Path) -> None:
    """Writes a PNG with one panel a measurement, held-out values with 95 % intervals."""
    names = list(history.first)
    figure = Figure(figsize=(5.2 * len(names), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        metric = TRAINING_CURVE.get(name)
        if metric is not None and all(metric in step for step in steps):
            values = [step[metric] for step in steps]
            axes.plot(
                range(1, len(values) + 1), values,
                color="#b9c4d0", linewidth=1, label="training documents, each step",
            )  # fmt: skip
        done, intervals = zip(*history.curve(name), strict=True)
        axes.errorbar(
            done, [i.mean for i in intervals], [i.half_width for i in intervals],
            color="#1f5fa8", marker="o", markersize=4, capsize=3, linewidth=1.8,
            label="held-out documents, 95 % interval",
        )  # fmt: skip
        axes.set_title(name, loc="left", fontsize=11, fontweight="bold")
        axes.set_xlabel("optimizer steps")
        axes.set_ylabel(history.first[name].unit)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e9ed")
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(file, dpi=150)
