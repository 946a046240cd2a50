"""Feature map `bag_of_tokens`: how often each token occurs. A control without a network."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt

from ebft.lazy import Tensor, torch
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.records import Features, Rollouts

Scale = Literal["count", "share", "unit"]


class BagOfTokens(FeatureMapPart):
    """φ_v = how often token v occurs among the tokens of a rollout or reference.

    It ignores order, meaning and context, so comparing a run with one of `hidden_states` shows what
    the network's features contribute.
    """

    dimensions: PositiveInt | None = Field(
        1024, description="D; token v counts at v mod D; null: one for each token, [P, n, V]"
    )
    scale: Scale = Field(
        "unit",
        description="count; share: count / tokens of the rollout; unit: counts with L2 norm 1",
    )

    def claim(self) -> Claim:
        return Claim(True, "a fixed function of each rollout")

    def base_depth(self) -> float:
        return 0.0

    def build(self, resources: Resources) -> BagOfTokensMap:
        from ebft.models.decoder import text_config

        return BagOfTokensMap(
            self.dimensions or text_config(resources.policy).vocab_size, self.scale
        )


class BagOfTokensMap:
    """`BagOfTokens` with its number of dimensions."""

    def __init__(self, dimensions: int, scale: Scale) -> None:
        self._dimensions, self._scale = dimensions, scale

    def __call__(self, rollouts: Rollouts) -> Features:
        contexts = rollouts.contexts
        return Features(
            self._bag(rollouts.tokens, rollouts.mask),
            self._bag(contexts.reference, contexts.reference_mask)[:, None],
        )

    def _bag(
        self, tokens: Int[Tensor, "*N G"], mask: Bool[Tensor, "*N G"]
    ) -> Float[Tensor, "*N D"]:
        counts = torch.zeros(*tokens.shape[:-1], self._dimensions, device=tokens.device)
        counts.scatter_add_(-1, tokens % self._dimensions, mask.to(counts.dtype))
        match self._scale:
            case "count":
                return counts
            case "share":
                return counts / mask.sum(-1, keepdim=True)
            case "unit":
                return torch.nn.functional.normalize(counts, dim=-1)
