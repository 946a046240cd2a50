"""Feature maps `layer_concat` and `mean_pool`: the two settings of the paper, by name."""

from __future__ import annotations

from typing import ClassVar

from ebft.features.hidden_states import HiddenStates, HiddenStatesMap
from ebft.features.pooling import Pooling
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.part import Claim, Resources


class _Preset(FeatureMapPart):
    """`hidden_states` with the paper's settings, except the pooling."""

    pooling: ClassVar[Pooling]

    def _whole(self) -> HiddenStates:
        return HiddenStates(depths=(0.25, 0.5, 0.75), combine="concat", pooling=self.pooling)

    def base_depth(self) -> float:
        return self._whole().base_depth()

    def claim(self) -> Claim:
        return self._whole().claim()

    def build(self, resources: Resources) -> HiddenStatesMap:
        return self._whole().build(resources)


class LayerConcat(_Preset):
    """`hidden_states` of the layers at ¼, ½ and ¾ of the depth, concatenated, of the last token.

    The paper's features for code. The three layers of a token are L2-normalised together.
    """

    pooling = "last"


class MeanPool(_Preset):
    """`hidden_states` of the layers at ¼, ½ and ¾ of the depth, concatenated, averaged over tokens.

    The paper's features for translation. The three layers of a token are L2-normalised together,
    before the mean over the rollout's tokens.
    """

    pooling = "mean"
