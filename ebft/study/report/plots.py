"""The pictures of a report: effects of each factor, heat maps, training curves, and curves over the
length of completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ebft.report.style import GREY, bars, colour, plain, style
from ebft.scoring.interval import TOO_FEW
from ebft.study.report.effects import paired_documents
from ebft.study.report.groups import Comparison, Crossing
from ebft.study.report.records import RunRecord, StudyRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTH = 5
"""The number of steps in the moving average of training curves."""
PALE = 1.4
"""The range of a heat map's colours, relative to the largest difference. It is at least twice the
widest interval, so that differences that may be chance look pale."""
LEGEND = 1.3
"""The width of the legend beside the curves, in inches."""
SHORT_LABEL = 4
"""The longest label that is not rotated, in characters."""
TRAINING_CURVES = {"ce": "cross-entropy of training documents"}
"""The training metrics that can be compared between arms."""


def plot_effects(study: StudyRecord, compared: Sequence[Comparison]) -> Figure | None:
    """Final values by level, with a column for each factor and a row for each measure.

    A bar is the 95 % interval of the paired difference from the reference, over documents; small
    points are seeds.
    """
    measures = study.single()
    if not measures:
        return None
    widths = [max(len(it.groups), 2) for it in compared]
    figure = Figure(
        figsize=(max(1.5 + 0.75 * sum(widths), 4.5), 0.9 + 2.3 * len(measures)),
        layout="constrained",
    )
    grid = figure.subplots(
        len(measures),
        len(compared),
        squeeze=False,
        sharex="col",
        sharey="row",
        width_ratios=widths,
    )
    for measure, row in zip(measures, grid, strict=True):
        for number, (comparison, axes) in enumerate(zip(compared, row, strict=True)):
            _effect(axes, study, comparison, measure)
            first_row = measure == measures[0]
            unit = _unit(study, measure)
            style(
                axes,
                title=comparison.title if first_row else "",
                y=f"{measure}, {unit}" if number == 0 else "",
            )
    return figure


def plot_heat_map(study: StudyRecord, crossing: Crossing) -> Figure | None:
    """Differences from the reference by two factors, with a panel for each measure."""
    measures = study.single()
    if not measures or not study.reference_runs:
        return None
    width = 1.6 + 1.05 * len(crossing.column_labels)
    height = 1.3 + 0.62 * len(crossing.row_labels)
    figure = Figure(figsize=(width * len(measures), height), layout="constrained")
    for axes, measure in zip(
        figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True
    ):
        _heat(axes, study, crossing, measure)
    return figure


def plot_curves(study: StudyRecord, comparison: Comparison) -> Figure | None:
    """Curves during training, over steps on the left and over FLOPs on the right.

    Lines are means over seeds. Bands reach from the lowest seed to the highest, in the change since
    the first evaluation.
    """
    held_out = [m for m in study.single() if _points(study, m) > 2]
    rows = [(name, True) for name in held_out] + [(name, False) for name in TRAINING_CURVES]
    known = all(run.description.tflop is not None for run in study.done)
    size = (4.6 * (1 + known) + LEGEND, 2.6 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), 1 + known, squeeze=False, sharey="row")
    drawn = False
    for (name, is_held_out), panels in zip(rows, grid, strict=True):
        for axes, by_flops in zip(panels, (False, True), strict=False):
            for number, (label, runs) in enumerate(comparison.groups.items()):
                drawn |= _curve(axes, runs, name, is_held_out, by_flops, label, colour(number))
            title = name if is_held_out else TRAINING_CURVES[name]
            style(
                axes,
                title="" if by_flops else title,
                x="TFLOP of training" if by_flops else "optimizer steps",
            )
            if not by_flops:
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[0][-1].legend(
        fontsize=8, frameon=False, title=plain(comparison.title), title_fontsize=8,
        loc="upper left", bbox_to_anchor=(1.01, 1), alignment="left",
    )  # fmt: skip
    return figure if drawn else None


def plot_families(study: StudyRecord, comparison: Comparison) -> Figure | None:
    """Final values over the length of completions; values before training are dashed."""
    found = study.families()
    if not found:
        return None
    figure = Figure(figsize=(4.8 * len(found), 3.4), layout="constrained")
    for axes, (family, members) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        lengths = [length for length, _ in members]
        before = [
            _mean([run for run in study.done if m in run.first], m, first=True) for _, m in members
        ]
        axes.plot(
            lengths, before, color=GREY, linestyle="--", linewidth=1.2, label="before training"
        )
        for number, (label, runs) in enumerate(comparison.groups.items()):
            values = [_mean([run for run in runs if m in run.last], m) for _, m in members]
            changes = [paired_documents(runs, runs, m, first=True) for _, m in members]
            axes.errorbar(
                lengths,
                values,
                bars(changes),
                color=colour(number), marker="o", markersize=4, capsize=3, linewidth=1.6,
                label=plain(label),
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [str(length) for length in lengths])
        unit = _unit(study, members[0][1])
        style(axes, title=family, x="tokens of a completion", y=unit)
        axes.legend(fontsize=8, frameon=False)
    return figure


def _effect(axes: Axes, study: StudyRecord, comparison: Comparison, measure: str) -> None:
    reference = [run for run in comparison.against if measure in run.last]
    before = [run for run in study.done if measure in run.first]
    if before:
        axes.axhline(_mean(before, measure, first=True), color=GREY, linewidth=1, linestyle=":")
    if reference:
        axes.axhline(_mean(reference, measure), color=GREY, linewidth=1, linestyle="--")
    for place, group in enumerate(comparison.groups.values()):
        runs = [run for run in group if measure in run.last]
        if not runs:
            continue
        is_reference = {run.name for run in runs} == {run.name for run in reference}
        shade = "#20262e" if is_reference else colour(0)
        over = None if is_reference else paired_documents(runs, reference, measure)
        value = _mean(runs, measure)
        axes.errorbar(
            [place], [value], bars([over]),
            color=shade, marker="o", markersize=6, capsize=3, linewidth=1.6, zorder=3,
        )  # fmt: skip
        axes.scatter(
            [place + 0.16] * len(runs),
            [run.last[measure].mean for run in runs],
            s=9, color=shade, alpha=0.45, linewidths=0, zorder=2,
        )  # fmt: skip
    labels = list(comparison.groups)
    long = max(map(len, labels)) > SHORT_LABEL
    axes.set_xticks(range(len(labels)), map(plain, labels))
    axes.tick_params(axis="x", labelrotation=30 if long else 0)
    for tick in axes.get_xticklabels():
        tick.set_horizontalalignment("right" if long else "center")
    axes.set_xlim(-0.6, len(comparison.groups) - 0.4)


def _heat(axes: Axes, study: StudyRecord, crossing: Crossing, measure: str) -> None:
    shape = (len(crossing.row_labels), len(crossing.column_labels))
    values, halves = np.full(shape, np.nan), np.full(shape, np.nan)
    is_reference = np.full(shape, False)
    against = [run for run in study.reference_runs if measure in run.last]
    for (row, column), group in crossing.cells.items():
        at = crossing.row_labels.index(row), crossing.column_labels.index(column)
        runs = [run for run in group if measure in run.last]
        if runs and against:
            is_reference[at] = {run.name for run in runs} == {run.name for run in against}
            values[at] = _mean(runs, measure) - _mean(against, measure)
            over = paired_documents(runs, against, measure)
            halves[at] = np.nan if over is None else over.half_width
    top = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
    widest = max(halves[np.isfinite(halves)], default=0.0)
    edge = max(PALE * top, 2 * widest) or 1.0
    axes.imshow(values, cmap="RdBu_r", vmin=-edge, vmax=edge, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(value) > 0.55 * edge
            half = "" if np.isnan(halves[i, j]) else f"\n± {halves[i, j]:.3f}"
            half = f"\n({TOO_FEW})" if np.isinf(halves[i, j]) else half
            axes.text(
                j, i, "reference" if is_reference[i, j] else f"{value:+.3f}{half}",
                ha="center", va="center", fontsize=8, color="white" if dark else "#20262e",
            )  # fmt: skip
    axes.set_xticks(range(shape[1]), map(plain, crossing.column_labels), fontsize=8)
    axes.set_yticks(range(shape[0]), map(plain, crossing.row_labels), fontsize=8)
    axes.set_xlabel(plain(crossing.columns), fontsize=9)
    axes.set_ylabel(plain(crossing.rows), fontsize=9)
    axes.set_title(plain(f"{measure}, difference"), loc="left", fontsize=10, fontweight="bold")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _curve(
    axes: Axes, runs: Sequence[RunRecord], name: str, is_held_out: bool, by_flops: bool,
    label: str, shade: str,
) -> bool:  # fmt: skip
    lines = [line for run in runs if (line := _line(run, name, is_held_out))]
    shared = sorted(set.intersection(*map(set, lines))) if lines else []
    if not shared:
        return False
    values = np.array([[line[step] for step in shared] for line in lines])
    if is_held_out:
        # The spread of the changes, without the spread of the first evaluations.
        values += values[:, :1].mean() - values[:, :1]
    elif len(shared) > 2 * SMOOTH:
        values = _smooth(values)
        shared = shared[len(shared) - values.shape[1] :]
    x = np.array([_tflop(runs, step) if by_flops else step for step in shared], float)
    marker = "o" if is_held_out else None
    axes.plot(
        x,
        values.mean(0),
        color=shade,
        linewidth=1.6,
        marker=marker,
        markersize=4,
        label=plain(label),
    )
    if len(lines) > 1:
        axes.fill_between(x, values.min(0), values.max(0), color=shade, alpha=0.15, linewidth=0)
    return True


def _line(run: RunRecord, name: str, is_held_out: bool) -> Mapping[int, float]:
    if is_held_out:
        return {step: named[name].mean for step, named in run.evaluations.items() if name in named}
    return {step: figures[name] for step, figures in run.training.items() if name in figures}


def _smooth(values: np.ndarray) -> np.ndarray:
    return np.apply_along_axis(
        lambda line: np.convolve(line, np.full(SMOOTH, 1 / SMOOTH), mode="valid"), 1, values
    )


def _tflop(runs: Sequence[RunRecord], step: int) -> float:
    """The mean TFLOP of a group's runs, whose costs may differ."""
    return mean(tflop for run in runs if (tflop := run.tflop_after(step)) is not None)


def _unit(study: StudyRecord, measure: str) -> str:
    return next(run.last[measure].unit for run in study.done if measure in run.last)


def _points(study: StudyRecord, measure: str) -> int:
    return max(sum(measure in named for named in run.evaluations.values()) for run in study.done)


def _mean(runs: Sequence[RunRecord], measure: str, *, first: bool = False) -> float:
    found = [(run.first if first else run.last)[measure].mean for run in runs]
    return mean(found) if found else float("nan")
