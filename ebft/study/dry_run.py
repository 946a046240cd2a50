"""What a study would run and what that would cost, for `--dry-run`."""

from __future__ import annotations

from ebft.study.options import StudyOptions
from ebft.study.plan import PlannedArm, plan_arms

CPU_GFLOPS = 200.0
"""What two cores do in float32, evaluations and loading not counted."""


def estimate_table(options: StudyOptions) -> str:
    """Every arm with its steps and FLOPs, and the total over seeds. Raises `ValueError` if no
    arm's cost can be known."""
    planned = plan_arms(options)
    seeds = len(options.seeds)
    rows, total = [], 0.0
    for arm in planned:
        tflop = arm.tflop()
        total += tflop * seeds
        rows.append(f"{arm.steps:>7,}{tflop:>10,.1f}  {title(arm)}")
    minutes = total * 1000 / CPU_GFLOPS / 60
    return "\n".join(
        [
            f"{len(planned)} arms × {seeds} seed{'s' * (seeds > 1)} = {len(planned) * seeds} runs",
            "",
            f"{'steps':>7}{'TFLOP':>10}  arm",
            *rows,
            "",
            f"all runs: {total:,.1f} TFLOP of training, evaluations not counted",
            f"about {max(minutes, 1):,.0f} minutes at {CPU_GFLOPS:.0f} GFLOP/s",
        ]
    )


def title(arm: PlannedArm) -> str:
    """The arm's label, with what else it would be called."""
    first, *others = arm.arms
    also = f" ({'; '.join(other.label for other in others)})" if others else ""
    return f"{first.label}{also}"
