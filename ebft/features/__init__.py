"""Feature maps: rollouts → features φ of samples and references."""

from ebft.features.bag_of_tokens import BagOfTokens
from ebft.features.concat import Concat
from ebft.features.hidden_states import HiddenStates
from ebft.features.next_token_log_probs import NextTokenLogProbs
from ebft.features.presets import LayerConcat, MeanPool
from ebft.features.teacher_references import TeacherReferences
from ebft.parts.hooks import Parts, hookimpl


@hookimpl
def register_feature_maps() -> Parts:
    return {
        "bag_of_tokens": BagOfTokens,
        "concat": Concat,
        "hidden_states": HiddenStates,
        "layer_concat": LayerConcat,
        "next_token_log_probs": NextTokenLogProbs,
        "mean_pool": MeanPool,
        "teacher_references": TeacherReferences,
    }
