"""Feature maps: rollouts → features φ of samples and references."""

from ebft.features.hidden_states import HiddenStates
from ebft.hookspecs import Parts, hookimpl


@hookimpl
def register_feature_maps() -> Parts:
    return {"hidden_states": HiddenStates}
