"""Feature map `teacher_references`: the references are rollouts of a teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from ebft.distributed.processes import ONE_PROCESS
from ebft.parts.interfaces import FeatureMap, Sampler, features_of
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.part import Claim, Resources, claim_of_all, part_of
from ebft.parts.stateful import load_part_states, part_states
from ebft.rollout.records import Features, Rollouts
from ebft.samplers.hf_tree import HfTree

STREAM = 1 << 40
"""Added to the seed: the teacher's rollouts must not be drawn by the policy's random numbers."""


class TeacherReferences(FeatureMapPart):
    """φ of the policy's rollouts, and of m rollouts that a teacher samples after the same contexts.

    With feature matching the loss is then the distance to the teacher, E_c ‖E_{ŷ∼p_θ} φ(c:ŷ) −
    E_{y∼teacher} φ(c:y)‖²: distillation on the policy's own rollouts. A context has m references
    where data have one, so that the noise that they add is divided by m. They are the same each
    time that the context comes, as those of data are. The cross-entropy, if γ is not 0, is still
    that of the data's text.
    """

    teacher: str = Field(
        description="a local HF folder or a hub id, of a model with the same tokens"
    )
    feature_map: Annotated[FeatureMapPart, part_of("feature_maps")] = Field(
        description="the feature map that computes φ of both"
    )
    m: int = Field(4, ge=1, description="references of each context")
    temperature: float = Field(1.0, gt=0, description="divides the teacher's logits")

    def claim(self) -> Claim | None:
        why = "its references are a teacher's, and L_CFM is the distance to that"
        return claim_of_all([self.feature_map.claim()], why)

    def base_depth(self) -> float:
        return self.feature_map.base_depth()

    def other_models(self) -> tuple[str, ...]:
        return (self.teacher, *self.feature_map.other_models())

    def single_process(self) -> str | None:
        return self.feature_map.single_process()

    def build(self, resources: Resources) -> TeacherReferencesMap:
        teacher = replace(
            resources,
            policy=resources.load_other(self.teacher),
            seed=resources.seed + STREAM,
            processes=ONE_PROCESS,  # it is whole in every process
        )
        sampler = HfTree(n=self.m, temperature=self.temperature).build(teacher)
        return TeacherReferencesMap(self.feature_map.build(resources), sampler)


class TeacherReferencesMap:
    """`TeacherReferences` with its feature map and the teacher's sampler."""

    def __init__(self, feature_map: FeatureMap, teacher: Sampler) -> None:
        self._feature_map, self._teacher = feature_map, teacher

    def state_dict(self) -> dict[str, Any]:
        return part_states([self._feature_map])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_part_states([self._feature_map], state)

    def __call__(self, rollouts: Rollouts) -> Features:
        of_policy = features_of(self._feature_map, rollouts)
        of_teacher = self._teacher(rollouts.contexts, step=0)
        references = features_of(self._feature_map, of_teacher).samples
        return replace(of_policy, references=references)
