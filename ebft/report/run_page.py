"""The page of one run: held-out figures, curves, rollouts by step, the recipe, the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ebft.evaluation.history import Evaluations
from ebft.evaluation.lines import DocumentsLine, Line
from ebft.report.curves import SMOOTH
from ebft.report.page import embedded, render
from ebft.report.panels import FEWEST, Steps, held_out_panels, step_panels
from ebft.report.rollouts_log import ShownContext, by_step
from ebft.report.surroundings import Started, merged
from ebft.scoring.interval import TOO_FEW, mean_interval

SHOWN_STEPS = 12
"""The steps whose rollouts the page has: the newest ones and the first."""
MAIN = ("ce", "policy_gradient_loss", "cfm", "reward", "alignment", "diversity", "grad_norm")
"""The metrics of steps that are shown at once; the others are in a part that can be opened."""
Cells = list[tuple[str, bool]]
"""The cells of a row: a text, and whether it is bold."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What is in a run's folder. `steps_wanted` is None for a run that does not train."""

    name: str
    recipe: str
    steps_wanted: int | None
    seed: int
    starts: Sequence[Started]
    evaluations: Sequence[Line]
    steps: Steps
    rollouts: Sequence[ShownContext]


def run_page(run: RunFiles) -> str:
    """Returns the page as one HTML file that needs no other."""
    history = Evaluations.of(run.evaluations)
    held_out = list(dict.fromkeys(line.name for line in run.evaluations))
    held_out_pictures = held_out_panels(history)
    step_pictures = step_panels(run.steps, held_out)
    done = max([*run.steps, *(line.step for line in run.evaluations)], default=0)
    first, *_ = [start.what for start in run.starts] or [run.name]
    return render(
        "run.html",
        title=first,
        name=run.name,
        done=done,
        wanted=run.steps_wanted,
        fewest=FEWEST,
        smooth=SMOOTH,
        commands=list(dict.fromkeys(start.command for start in run.starts)),
        starts=[start.at for start in run.starts],
        seed=run.seed,
        headings=_headings(len(history)),
        rows=_rows(run.evaluations, history),
        too_few=TOO_FEW,
        held_out={name: embedded(it) for name, it in held_out_pictures.items()},
        main={name: embedded(it) for name, it in step_pictures.items() if name in MAIN},
        more={name: embedded(it) for name, it in step_pictures.items() if name not in MAIN},
        rollouts=_shown(by_step(run.rollouts)),
        recipe=run.recipe,
        surroundings=merged(start.surroundings for start in run.starts),
    )


def _headings(evaluations: int) -> list[str]:
    before = ["before", "now", "change, ± 95 %"] if evaluations > 1 else ["value, ± 95 %"]
    return ["measure", *before, "documents"]


def _rows(lines: Sequence[Line], history: Evaluations) -> list[Cells]:
    """A row for the last value of each figure; bold if its change is larger than its interval."""
    last = {line.name: line for line in sorted(lines, key=lambda line: line.step)}
    return [_row(line, history) for line in last.values()]


def _row(line: Line, history: Evaluations) -> Cells:
    label = f"{line.name}, {line.unit}" if line.unit else line.name
    documents = f"{line.documents:,}" if isinstance(line, DocumentsLine) else "–"
    half = "" if line.half_width_95 is None else f" ± {line.half_width_95:.4f}"
    if len(history) < 2:
        return [(label, False), (f"{line.mean:.4f}{half}", False), (documents, False)]
    if not isinstance(line, DocumentsLine) or line.name not in history.first:
        return [(label, False), ("–", False), (f"{line.mean:.4f}", False), ("–", False),
                (documents, False)]  # fmt: skip
    change = dict(history.changes(line.name))[line.step]
    return [
        (label, False),
        (f"{mean_interval(history.first[line.name]).mean:.4f}", False),
        (f"{line.mean:.4f}", False),
        (f"{change.mean:+.4f} {change.plus_minus}", change.excludes_zero),
        (documents, False),
    ]


def _shown(found: Mapping[int, Sequence[ShownContext]]) -> dict[int, Sequence[ShownContext]]:
    steps = list(found)
    if len(steps) > SHOWN_STEPS:
        steps = [*steps[: SHOWN_STEPS - 1], steps[-1]]
    return {step: found[step] for step in steps}
