"""Rollout geometry: plans, the tree of a document and its rollouts, and the records of a step."""

from ebft.hookspecs import Parts, hookimpl
from ebft.rollout.completion import Completion
from ebft.rollout.strided import Strided


@hookimpl
def register_plans() -> Parts:
    return {"strided": Strided, "completion": Completion}
