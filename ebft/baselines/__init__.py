"""Baselines: terms → what is subtracted from each rollout's reward."""

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.baselines.none import NoBaseline
from ebft.hookspecs import Parts, hookimpl


@hookimpl
def register_baselines() -> Parts:
    return {"none": NoBaseline, "leave_one_out": LeaveOneOut}
