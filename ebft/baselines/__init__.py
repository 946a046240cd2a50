"""Baselines: reward terms → advantages."""

from ebft.baselines.group_mean import GroupMean
from ebft.baselines.group_normalised import GroupNormalised
from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.baselines.moving_average import MovingAverage
from ebft.baselines.none import NoBaseline
from ebft.baselines.plain_rloo import PlainRloo
from ebft.parts.hooks import Parts, hookimpl


@hookimpl
def register_baselines() -> Parts:
    return {
        "none": NoBaseline,
        "leave_one_out": LeaveOneOut,
        "plain_rloo": PlainRloo,
        "group_mean": GroupMean,
        "group_normalised": GroupNormalised,
        "moving_average": MovingAverage,
    }
