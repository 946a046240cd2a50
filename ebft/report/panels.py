"""The pictures of a run's page: one small picture for each figure, so that a page can arrange them
by its width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ebft.evaluation.history import Evaluations
from ebft.report.curves import curves_over_length, draw_held_out, draw_lengths, draw_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Draw = Callable[[Axes], None]

Panels = Mapping[str, Figure]
"""Pictures by their names."""
SIZE = (4.6, 3.0)
"""In inches, of a picture with its legend."""
TITLES = {
    "ce": "cross-entropy, nats/token",
    "policy_gradient_loss": "policy-gradient loss",
    "cfm": "feature-matching loss",
    "reward": "reward",
    "alignment": "alignment",
    "diversity": "diversity",
    "advantage_std": "spread of advantages",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "rollout_tokens": "tokens of rollouts",
    "tokens_per_second": "tokens/second",
    "seconds": "seconds of a step",
    "memory_gib": "memory, GiB",
}
"""The metrics of steps that are drawn first, in this order, and their titles."""
FEWEST = 5
"""The fewest steps that make a curve."""
Steps = Mapping[int, Mapping[str, float]]
"""The metrics by the number of steps done."""


def held_out_panels(history: Evaluations) -> Panels:
    """A picture for each held-out figure that was measured more than once, and for each curve over
    the length of completions."""
    if not len(history):
        return {}
    drawn: dict[str, Figure] = {}
    for name, measured in history.first.items():
        if len(history) > 1 and measured.at is None:
            drawn[name] = _panel(partial(draw_held_out, history=history, name=name))
    for name in curves_over_length(history.last):
        drawn[name] = _panel(partial(draw_lengths, history=history, name=name), over_steps=False)
    return drawn


def step_panels(steps: Steps, held_out: Sequence[str]) -> Panels:
    """A picture for each metric of steps, except the means of evaluations, named `held_out`."""
    drawn = {}
    for name in _in_order(steps, held_out):
        done = [step for step, figures in steps.items() if name in figures]
        values = [steps[step][name] for step in done]
        if len(done) >= FEWEST:
            drawn[name] = _panel(partial(_draw_metric, done, values, TITLES.get(name, name)))
    return drawn


def _draw_metric(done: Sequence[int], values: Sequence[float], title: str, axes: Axes) -> None:
    draw_steps(axes, done, values, title=title)


def _in_order(steps: Steps, left_out: Sequence[str]) -> Iterator[str]:
    names = dict.fromkeys(name for figures in steps.values() for name in figures)
    yield from (name for name in TITLES if name in names)
    yield from (name for name in names if name not in TITLES and name not in left_out)


def _panel(draw: Draw, *, over_steps: bool = True) -> Figure:
    figure = Figure(figsize=SIZE)
    # A layout that is computed takes as long as the drawing.
    figure.subplots_adjust(left=0.14, right=0.97, top=0.9, bottom=0.16)
    axes = figure.subplots()
    draw(axes)
    if over_steps:
        axes.set_xlabel("optimizer steps", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if (legend := axes.get_legend()) is not None:
            legend.remove()  # the page says it once for all
    return figure
