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

    Called without arguments it gives `Splits`: the examples to train on, those held out, and
    perhaps those of another distribution, which are never trained on either. No file, row or copy
    may be in two of them. They are sequences: a list, or one that reads from disk what it is asked
    for.
    """


@hookspec
def register_plans() -> Parts:
    """Plans: build to a `Plan`, documents → contexts (which anchors, how long the rollouts).

    `accepts` says whether a document has at least one anchor; documents that it refuses are
    dropped, counted and reported. `ebft.rollout.contexts.make_contexts` makes `Contexts` of
    documents and their anchors, which must ascend and have a token of the document after them. A
    plan without state lets `--dry-run` count its tokens.
    """


@hookspec
def register_samplers() -> Parts:
    """Samplers: build to a `Sampler`, contexts → rollouts.

    The part derives from `ebft.SamplerPart`, which has the option `n`, rollouts of each context.
    Rollouts come with the log-probs of the distribution that was sampled from. `sync` takes over
    the policy's weights after every optimizer step and returns figures to log, `{}` if there are
    none.
    """


@hookspec
def register_feature_maps() -> Parts:
    """Feature maps: build to a `FeatureMap`, rollouts → features φ of samples and references.

    The part derives from `ebft.FeatureMapPart`. It computes no gradients. `resources.load_base()`
    is a frozen copy of the base model. The map is called once a step;
    `for place, part in rollouts.split()` gives one micro-batch at a time, as much as there is
    memory for. `base_depth()` is the fraction of the base model's layers that it runs, so that
    `--dry-run` prices it; all layers unless it is overridden.
    """


@hookspec
def register_transforms() -> Parts:
    """Feature transforms: build to a `Transform`, features → features (norms, whitening).

    They change features as a whole, in the order in which the recipe lists them.
    """


@hookspec
def register_rewards() -> Parts:
    """Rewards: build to a `Reward`, rollouts and features → unary and pairwise terms.

    What a rollout earns by itself stays apart from what pairs of rollouts earn. The part derives
    from `ebft.RewardPart`. `pairwise()` says whether it has terms of pairs with these options, and
    so needs n > 1; True unless it is overridden. If `uses_features()` returns False, the recipe
    needs no feature map, none is computed, and the reward is called with `None` for features.
    """


@hookspec
def register_baselines() -> Parts:
    """Baselines: build to a `Baseline`, reward terms → advantages `[P, n]`.

    The part derives from `ebft.BaselinePart`, whose `fewest_rollouts` is 1 unless it is overridden.
    The gradient stays unbiased if what is subtracted from the reward of rollout j leaves out every
    term that touches j.
    """


@hookspec
def register_evaluators() -> Parts:
    """Evaluators: build to an `Evaluator`, policy and held-out documents → measurements.

    The part derives from `ebft.EvaluatorPart`. Each `Measurement` has a value for every document,
    so that intervals can be computed, and a weight, 0 for a document that it cannot measure. An
    evaluator is given some documents of a set at a time and measures each by itself; the set's name
    (held-out, out-of-distribution) is put before its figures' names. Two evaluators of a kind that
    derive from `ebft.LabelledPart` are told apart by their `label`.
    """
