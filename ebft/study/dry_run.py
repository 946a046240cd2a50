"""The estimate that `--dry-run` prints for a study: its runs and their cost."""

from __future__ import annotations

from ebft.study.options import StudyOptions
from ebft.study.plan import PlannedArm, plan_arms

CPU_GFLOPS = 200.0
"""The assumed speed of two cores in float32, not counting evaluations and loading."""


def estimate_table(options: StudyOptions) -> str:
    """The steps and FLOPs of every arm, and the total over seeds.

    Raises `ValueError` if the cost of an arm cannot be estimated.
    """
    planned = plan_arms(options)
    seeds = len(options.seeds)
    rows, total = [], 0.0
    for arm in planned:
        tflop = arm.tflop()
        total += tflop * seeds
        rows.append(f"{arm.steps:>7,}{tflop:>14,.1f}  {title(arm)}")
    minutes = total * 1000 / CPU_GFLOPS / 60
    return "\n".join(
        [
            f"{len(planned)} arms × {seeds} seed{'s' * (seeds > 1)} = {len(planned) * seeds} runs",
            "",
            f"{'steps':>7}{'TFLOP':>14}  arm",
            *rows,
            "",
            f"all runs: {total:,.1f} TFLOP of training, evaluations not counted",
            f"about {max(minutes, 1):,.0f} minutes at {CPU_GFLOPS:.0f} GFLOP/s",
        ]
    )


def title(arm: PlannedArm) -> str:
    """The arm's label, with the labels of other arms that have the same recipe."""
    first, *others = arm.arms
    also = f" ({'; '.join(other.label for other in others)})" if others else ""
    return f"{first.label}{also}"
