"""The findings as a picture: where noise comes from, what a step of more documents has, other n."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from ebft.files import write_whole
from ebft.report.style import GREY, colour, plain, png, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ebft.diagnosis.run import Findings, Result
    from ebft.scoring.pairs import Ratio

SHOWN = 1e-3, 1e2
"""Signal ÷ noise that is shown."""


def plot_findings(findings: Findings, file: Path) -> None:
    """Writes a PNG with three panels; of SFT there is one."""
    with_rollouts = [it for it in findings.results if it.figures.policy is not None]
    panels = 3 if with_rollouts else 1
    figure = Figure(figsize=(5.2 * panels, 3.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _steps(axes[0], findings.results)
    if with_rollouts:
        _sources(axes[1], with_rollouts)
        _other_n(axes[2], with_rollouts)
    write_whole(file, png(figure))


def _steps(axes: Axes, results: Sequence[Result]) -> None:
    """Signal ÷ noise of a step over its documents; a band from the interval of the noise scale."""
    for place, result in enumerate(results):
        scale = (result.figures.policy or result.figures.cross_entropy).noise_scale()
        _line(axes, scale, colour(place), result.alternative.label)
        B = result.alternative.options.training.documents_per_step
        axes.axvline(B, color=colour(place), linewidth=0.8, linestyle=":")
    first = results[0].figures
    if first.policy is not None:
        _line(axes, first.cross_entropy.noise_scale(), GREY, "cross-entropy")
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(*SHOWN)
    axes.xaxis.set_major_formatter("{x:g}")
    style(axes, title="signal ÷ noise of a step", x="documents of a step (dotted: the recipe's)")
    axes.legend(fontsize=7, frameon=False)


def _line(axes: Axes, scale: Ratio, color: str, label: str) -> None:
    documents = 2.0 ** np.arange(0, 13)
    if scale.value < inf:
        axes.plot(
            documents, documents / scale.value,
            color=color, linewidth=1.8, linestyle="-" if scale.told else "--",
            label=plain(label if scale.told else f"{label} (not told from zero)"),
        )  # fmt: skip
    else:
        axes.plot([], [], color=color, linestyle="--", label=plain(f"{label} (no signal)"))
    if scale.low > 0:
        lower = documents / scale.high if scale.told else np.full_like(documents, SHOWN[0])
        axes.fill_between(documents, lower, documents / scale.low, color=color, alpha=0.15, lw=0)


def _sources(axes: Axes, results: Sequence[Result]) -> None:
    """Shares of the noise; alternatives with another objective have another scale."""
    places = range(len(results))
    parts = [it.figures.policy for it in results]
    shares = [max(min(p.rollouts.value / p.noise.value, 1), 0) for p in parts if p is not None]
    axes.barh(places, shares, color=colour(1), height=0.6, label="rollouts")
    axes.barh(
        places, [1 - it for it in shares], left=shares, color=colour(0), height=0.6,
        label="documents and references",
    )  # fmt: skip
    axes.set_yticks(places, [plain(it.alternative.label) for it in results])
    axes.set_ylim(max(len(results), 3), -0.6)  # room for the legend
    axes.set_xlim(0, 1)
    style(axes, title="where the noise comes from", x="share of the policy gradient's noise")
    axes.legend(fontsize=7, frameon=False, loc="lower right")


def _other_n(axes: Axes, results: Sequence[Result]) -> None:
    """Noise × FLOPs of other n, relative to the alternative's own."""
    for place, result in enumerate(results):
        rollouts = result.figures.rollouts
        if rollouts is None:
            continue
        found = {n: rollouts.relative(n) for n in rollouts.noise}
        values = [it.value for it in found.values()]
        below = [max(it.value - it.low, 0) for it in found.values()]
        above = [min(it.high, 10) - it.value if it.high > it.value else 0 for it in found.values()]
        axes.errorbar(
            list(found), values, [below, above],
            color=colour(place), marker="o", markersize=4, capsize=3, linewidth=1.6,
            label=plain(result.alternative.label),
        )  # fmt: skip
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    style(axes, title="noise × FLOPs, relative to the recipe's n", x="n, rollouts of a context")
    axes.legend(fontsize=7, frameon=False)
