"""Whether evaluators can measure the documents chosen for them, before any of them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ebft.errors import UserError
from ebft.evaluation.rollouts import check_rollouts_fit
from ebft.parts.interfaces import Plan
from ebft.parts.part import Part
from ebft.plans.completion import Completion
from ebft.rollout.records import Document


@runtime_checkable
class HasPlan(Protocol):
    """Options of an evaluator that samples rollouts where a plan says."""

    plan: Any


@runtime_checkable
class HasRolloutLength(Protocol):
    """Options of an evaluator that lets the policy complete prompts."""

    rollout_length: int


def check_plans(
    evaluators: Sequence[Part], documents: Sequence[Document], *, key: str, reads: int | None
) -> None:
    """Raises `UserError` for an evaluator whose plan accepts none of the documents, or whose
    rollouts would end beyond what the model `reads`: to learn it later costs what was measured.

    `key` is that of the section with `evaluators`.
    """
    for number, part in enumerate(evaluators):
        where, plan = f"{key}.evaluators.{number}", plan_of(part)
        if plan is None:
            continue
        accepted = [document for document in documents if plan.accepts(document)]
        if not accepted:
            raise UserError(
                f"{where}: its plan accepts none of the {len(documents)} documents; it needs "
                f"{plan.shortest_document} tokens or more, and a plan completion needs prompts"
            )
        check_rollouts_fit(plan(accepted), reads, where=where)


def plan_of(part: Part) -> Plan | None:
    """The plan that an evaluator's rollouts follow; None if its options do not say."""
    if isinstance(part, HasPlan):
        return part.plan if isinstance(part.plan, Plan) else None
    if isinstance(part, HasRolloutLength):
        return Completion(rollout_length=part.rollout_length)
    return None
