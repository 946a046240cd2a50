"""FLOPs of the documents that were measured, by the cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from ebft.diagnosis.shared_tokens import SharedTokens
from ebft.models.cost import DocumentTree

if TYPE_CHECKING:
    from ebft.rollout.records import Contexts
    from ebft.runs.estimate import StepEstimate


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost model of a recipe, and the trees of the documents that were measured.

    `shared` says how many rollout tokens are computed; None if all are.
    """

    estimate: StepEstimate
    trees: Sequence[DocumentTree]
    shared: SharedTokens | None = None

    @classmethod
    def of(
        cls,
        estimate: StepEstimate,
        contexts: Contexts,
        *,
        length: float | None,
        shared: SharedTokens | None = None,
    ) -> Costs:
        """`length` is the mean number of tokens of a rollout, which is less than the plan's where
        rollouts end early; None if there are none. Rows share no tokens."""
        n = estimate.tree.n
        G = contexts.rollout_length if length is None else max(1, round(length))
        anchors = torch.bincount(contexts.row.cpu(), minlength=len(contexts.documents)).tolist()
        places = torch.split(contexts.anchor.cpu(), anchors)
        return cls(
            estimate,
            [
                DocumentTree(length, own.tolist(), n, G)
                for length, own in zip(contexts.lengths.tolist(), places, strict=True)
            ],
            None if estimate.tree.on_rows else shared,
        )

    def of_training(self, n: int) -> float:
        """FLOPs of the mean document with n rollouts of each context: sampled, scored, trained."""
        return sum(sum(self._work(tree, n).values()) for tree in self.trees) / len(self.trees)

    def of_measuring(self, n: int, *, union: bool) -> float:
        """FLOPs of measuring all the documents: 2n rollouts are sampled; two sets of n, and their
        union, are scored and differentiated."""
        total = 0.0
        for tree in self.trees:
            half, whole = self._work(tree, n), self._work(tree, 2 * n)
            total += whole["sampling"] + 2 * (half["features"] + half["training"])
            total += whole["features"] + union * whole["training"]
        return total

    def of_cross_entropy(self) -> float:
        """FLOPs of the gradient of the cross-entropy of all the documents."""
        alone = [replace(tree, anchors=[], n=0) for tree in self.trees]
        return sum(self._work(tree, 0)["training"] for tree in alone)

    def _work(self, tree: DocumentTree, n: int) -> dict[str, float]:
        every = self._work_of_all(tree, n)
        if self.shared is None or n == 0:
            return every
        none, share = self._work_of_all(tree, 0), self.shared.share(n)
        return {name: none[name] + share * (every[name] - none[name]) for name in every}

    def _work_of_all(self, tree: DocumentTree, n: int) -> dict[str, float]:
        one = replace(tree, n=n)
        estimate = replace(self.estimate, tree=one, typical=one)
        work = {"sampling": 0.0, "features": 0.0, "training": 0.0}
        return work | {it.name.rstrip(" *"): it.flop for it in estimate.work()}
