"""The hooks a plug-in may implement. Each returns `{name: Part subclass}` and is called once.

The names are what a recipe's `_component_` says; the hot loop never calls a hook.
"""

from collections.abc import Mapping

import pluggy

from ebft.parts import Part

hookspec = pluggy.HookspecMarker("ebft")
hookimpl = pluggy.HookimplMarker("ebft")

Parts = Mapping[str, type[Part]]


@hookspec
def register_data() -> Parts:
    """Data sources: build to a `DataSource`, the train and held-out texts."""


@hookspec
def register_plans() -> Parts:
    """Plans: build to a `Plan`, documents → contexts (which anchors, how long the rollouts)."""


@hookspec
def register_samplers() -> Parts:
    """Samplers: build to a `Sampler`, contexts → rollouts."""


@hookspec
def register_feature_maps() -> Parts:
    """Feature maps: build to a `FeatureMap`, rollouts → features φ of samples and references."""


@hookspec
def register_transforms() -> Parts:
    """Feature transforms: build to a `Transform`, features → features (norms, whitening)."""


@hookspec
def register_rewards() -> Parts:
    """Rewards: build to a `Reward`, rollouts and features → unary and pairwise terms."""


@hookspec
def register_baselines() -> Parts:
    """Baselines: build to a `Baseline`, reward terms → advantages."""


@hookspec
def register_evaluators() -> Parts:
    """Evaluators: build to an `Evaluator`, policy and held-out documents → measurements."""
