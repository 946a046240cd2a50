"""Plans: the anchors of documents, and the length of rollouts."""

from ebft.parts.hooks import Parts, hookimpl
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided


@hookimpl
def register_plans() -> Parts:
    return {"strided": Strided, "completion": Completion}
