"""Checks that evaluators can measure their documents, before any of them runs."""

from __future__ import annotations

from collections.abc import Sequence

from ebft.errors import UserError
from ebft.evaluation.rollouts import check_rollouts_fit
from ebft.parts.kinds import EvaluatorPart
from ebft.rollout.records import Document


def check_plans(
    evaluators: Sequence[EvaluatorPart],
    documents: Sequence[Document],
    *,
    key: str,
    reads: int | None,
) -> None:
    """Raises `UserError` for an evaluator whose plan accepts none of the documents, or whose
    rollouts would exceed the tokens that the model `reads`.

    This check comes early, because an error later would lose other measurements. `key` is the key
    of the section with `evaluators`.
    """
    for number, part in enumerate(evaluators):
        where, plan = f"{key}.evaluators.{number}", part.rollout_plan()
        if plan is None:
            continue
        accepted = [document for document in documents if plan.accepts(document)]
        if not accepted:
            raise UserError(
                f"{where}: its plan accepts none of the {len(documents)} documents; it needs "
                f"{plan.shortest_document} tokens or more, and a plan completion needs prompts"
            )
        check_rollouts_fit(plan(accepted), reads, where=where)
