"""Feature maps `layer_concat` and `mean_pool`: the two settings of the paper, by name."""

from __future__ import annotations

from ebft.features.hidden_states import HiddenStates, HiddenStatesMap
from ebft.parts import Claim, Part, Resources

DEPTHS = (0.25, 0.5, 0.75)
FIXED = Claim(True, "a fixed function of each rollout and its context")


class LayerConcat(Part):
    """`hidden_states` of the layers at ¼, ½ and ¾ of the depth, concatenated, of the last token.

    The paper's features for code. The three layers of a token have one L2 norm together.
    """

    def base_depth(self) -> float:
        return max(DEPTHS)

    def claim(self) -> Claim:
        return FIXED

    def build(self, resources: Resources) -> HiddenStatesMap:
        return HiddenStates(depths=DEPTHS, combine="concat", pooling="last").build(resources)


class MeanPool(Part):
    """`hidden_states` of the layers at ¼, ½ and ¾ of the depth, concatenated, averaged over tokens.

    The paper's features for translation. Each token's three layers have one L2 norm together,
    before the mean over the rollout's tokens.
    """

    def base_depth(self) -> float:
        return max(DEPTHS)

    def claim(self) -> Claim:
        return FIXED

    def build(self, resources: Resources) -> HiddenStatesMap:
        return HiddenStates(depths=DEPTHS, combine="concat", pooling="mean").build(resources)
