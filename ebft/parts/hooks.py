"""The hooks a plug-in may implement. Each returns `{name: Part subclass}` and is called once.

The names are what a recipe's `_component_` says; the hot loop never calls a hook.
"""

from collections.abc import Mapping

import pluggy

from ebft.parts.part import Part

hookspec = pluggy.HookspecMarker("ebft")
hookimpl = pluggy.HookimplMarker("ebft")

Parts = Mapping[str, type[Part]]


@hookspec
def register_data() -> Parts:
    """Data sources: build to a `DataSource`, the train and held-out texts.

    Called without arguments, it returns `Splits`: the examples to train on, those held out, and
    optionally held-out examples of another distribution. No file, row or copy may be in two of
    them. Each split is a sequence: a list, or one that reads examples from disk on access.
    """


@hookspec
def register_plans() -> Parts:
    """Plans: build to a `Plan`, documents → contexts (the anchors, and the length of rollouts).

    `accepts` says whether a document has at least one anchor; other documents are dropped, counted
    and reported. `ebft.rollout.contexts.make_contexts` makes `Contexts` from documents and their
    anchors. Anchors must ascend, and the document must have a token after each. `--dry-run` can
    count tokens only for a plan without state.
    """


@hookspec
def register_samplers() -> Parts:
    """Samplers: build to a `Sampler`, contexts → rollouts.

    The part derives from `ebft.SamplerPart`, which has the option `n`, rollouts of each context.
    Rollouts have log-probs under the distribution that was sampled from. `sync` copies the policy's
    weights to the sampler after every optimizer step, and returns figures to log; `{}` if there are
    none.
    """


@hookspec
def register_feature_maps() -> Parts:
    """Feature maps: build to a `FeatureMap`, rollouts → features φ of samples and references.

    The part derives from `ebft.FeatureMapPart`. It computes no gradients. `resources.load_base()`
    returns a frozen copy of the base model, whose weights `ebft.models.whole.whole` gathers. The
    map is called once per step; `rollouts.split()` iterates over micro-batches that fit into
    memory. `base_depth()` is the fraction of the base model's layers that the map runs, for the
    cost estimate of `--dry-run`; by default all layers.
    """


@hookspec
def register_transforms() -> Parts:
    """Feature transforms: build to a `Transform`, features → features (norms, whitening).

    They are applied in the order in which the recipe lists them.
    """


@hookspec
def register_rewards() -> Parts:
    """Rewards: build to a `Reward`, rollouts and features → unary and pairwise terms.

    Unary terms score a rollout by itself, pairwise terms score pairs of rollouts. The part derives
    from `ebft.RewardPart`. `pairwise()` says whether it has pairwise terms with these options, and
    so needs n > 1; by default True. If `uses_features()` returns False, the recipe needs no feature
    map, none is computed, and the reward is called with `None` for features.
    """


@hookspec
def register_baselines() -> Parts:
    """Baselines: build to a `Baseline`, reward terms → advantages `[P, n]`.

    The part derives from `ebft.BaselinePart`, whose `fewest_rollouts` is 1 by default. The gradient
    stays unbiased if the baseline of rollout j leaves out every term that touches j.
    """


@hookspec
def register_evaluators() -> Parts:
    """Evaluators: build to an `Evaluator`, policy and held-out documents → measurements.

    The part derives from `ebft.EvaluatorPart`. Each `Measurement` has a value for every document,
    so that intervals can be computed, and a weight, 0 for a document that it cannot measure. An
    evaluator is called with some documents of a set at a time and measures each by itself. The
    name of the set (held-out, out-of-distribution) is prepended to the names of its figures.
    Evaluators that derive from `ebft.LabelledPart` have a `label`, which distinguishes two of the
    same class.
    """
