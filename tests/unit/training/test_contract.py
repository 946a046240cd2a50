"""A part that gives another shape than its kind promises is named, with both shapes."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.checkpoints.nested import check_nested
from ebft.distributed.processes import ONE_PROCESS
from ebft.errors import NumericalError, PluginError
from ebft.plans.strided import Strided
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features
from ebft.samplers.hf_tree import HfTree
from ebft.training.checks import sync_figures
from ebft.training.loop import sample_and_score
from ebft.training.parts import RolloutParts
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

N, D = 3, 4
CONTEXTS = Strided(start=2, stride=3, rollout_length=2)(tiny_documents([8, 5, 11]))
P = len(CONTEXTS)


@dataclass
class Likely:
    """Features with a large part in common, as those of language models have."""

    dtype: torch.dtype = torch.float32

    def __call__(self, rollouts):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(P, N + 1, D, generator=generator)
        both = (1 + 0.02 * noise).to(self.dtype)
        return Features(both[:, :N], both[:, N:])


def scored(**parts):
    sampler = HfTree(n=N).build(tiny_resources(tiny_policy()))
    usual = RolloutParts(sampler, Likely(), [], FeatureMatching(), LeaveOneOut())
    return sample_and_score(replace(usual, **parts), CONTEXTS, ONE_PROCESS, step=0)


def changed(part, **how):
    """The part, with fields of what it gives replaced."""

    def call(*arguments, **more):
        given = copy.copy(part(*arguments, **more))
        for name, change in how.items():
            # Not by `replace`: in the tests records check their shapes themselves.
            object.__setattr__(given, name, change(given))
        return given

    return call


def sampler_of(**how):
    sampler = HfTree(n=N).build(tiny_resources(tiny_policy()))
    call = changed(sampler, **how)
    return type("Sampler", (), {"n": N, "__call__": lambda _, *a, **k: call(*a, **k)})()


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            {"feature_map": changed(Likely(), references=lambda f: f.references[:, 0])},
            f"feature_map: features.references has shape [{P}, {D}]; [P, m, D] is [{P}, 1, {D}]",
        ),
        (
            {"feature_map": changed(Likely(), samples=lambda f: f.samples[:, :2])},
            f"feature_map: features.samples has shape [{P}, 2, {D}]",
        ),
        (
            {"transforms": [lambda f: f, changed(lambda f: f, samples=lambda f: f.samples[1:])]},
            f"transforms.1: features.samples has shape [{P - 1}, {N}, {D}]",
        ),
        (
            {"reward": changed(FeatureMatching(), unary=lambda t: t.unary.mean(1))},
            f"reward: terms.unary has shape [{P}]; [P, n] is [{P}, {N}]",
        ),
        (
            {"reward": changed(FeatureMatching(), pairwise=lambda t: t.pairwise.numpy())},
            "reward: terms.pairwise is a ndarray, not a tensor",
        ),
        (
            {"reward": changed(FeatureMatching(), unary=lambda t: t.unary.mean())},
            "reward: terms.unary is a single number; it needs dimensions",
        ),
        (
            {"feature_map": changed(Likely(), samples=lambda f: f.samples.tolist())},
            "feature_map: features.samples is a list, not a tensor",
        ),
        (
            {"feature_map": changed(Likely(), samples=lambda f: f.samples.mean())},
            "feature_map: features.samples is a single number; it needs dimensions",
        ),
        (
            {"sampler": sampler_of(mask=lambda r: None)},
            "sampler: rollouts.mask is a NoneType, not a tensor",
        ),
        (
            {"reward": changed(FeatureMatching(), pairwise=lambda t: t.pairwise + 1)},
            "reward: the diagonal of terms.pairwise is not zero",
        ),
        (
            {"transforms": [changed(lambda f: f, paired=lambda _: True)]},
            "transforms.0: features are paired, with 1 references for 3 rollouts",
        ),
        (
            {"baseline": lambda terms: terms.reward().mean(1, keepdim=True)},
            f"baseline: advantages has shape [{P}, 1]; [P, n] is [{P}, {N}]",
        ),
        (
            {"sampler": sampler_of(log_probs=lambda r: r.log_probs[..., 0])},
            f"sampler: rollouts.log_probs has shape [{P}, {N}]; [P, n, G] is [{P}, {N}, 2]",
        ),
        (
            {"sampler": sampler_of(mask=lambda r: torch.zeros_like(r.mask))},
            "sampler: rollouts.mask is False at the first token of a rollout",
        ),
    ],
)
def test_another_shape_is_named(parts, says):
    with pytest.raises(PluginError) as raised:
        scored(**parts)
    assert str(raised.value).startswith(says)


def with_nan(values):
    """The same with NaN in the last context's last number."""
    bad = values.clone()
    bad.view(-1)[-1] = float("nan")
    return bad


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        (
            {"sampler": sampler_of(log_probs=lambda r: with_nan(r.log_probs))},
            "log-probs of what is sampled",
        ),
        (
            {"feature_map": changed(Likely(), samples=lambda f: with_nan(f.samples))},
            "features of rollouts",
        ),
        (
            {"feature_map": changed(Likely(), references=lambda f: with_nan(f.references))},
            "features of references",
        ),
        ({"reward": changed(FeatureMatching(), unary=lambda t: with_nan(t.unary))}, "rewards"),
        ({"baseline": lambda terms: with_nan(terms.reward())}, "advantages"),
    ],
)
def test_what_is_not_finite_is_named_where_it_arises(parts, what):
    with pytest.raises(NumericalError, match=f"step 1: {what} have NaN .*, in document doc2;"):
        scored(**parts)


def test_what_stands_after_a_rollout_s_end_may_be_anything():
    def ended(rollouts):
        return rollouts.mask & (torch.arange(2) < 1)

    def log_probs(rollouts):
        return rollouts.log_probs.where(torch.arange(2) < 1, float("-inf"))

    assert scored(sampler=sampler_of(mask=ended, log_probs=log_probs)).advantages.shape == (P, N)


def test_the_right_shapes_pass():
    assert scored().advantages.shape == (P, N)


def test_features_in_bfloat16_are_compared_in_float32():
    """Their inner products would differ by less than bfloat16 can tell."""
    rounded, exact = scored(feature_map=Likely(torch.bfloat16)), scored()
    assert rounded.terms.unary.dtype == torch.float32
    # What is left is the rounding of the features themselves, not of their inner products.
    samples = Likely()(None).samples.bfloat16().float()
    references = Likely()(None).references.bfloat16().float()
    expected = LeaveOneOut()(FeatureMatching()(None, Features(samples, references)))
    torch.testing.assert_close(rounded.advantages, expected)
    assert exact.terms.unary.dtype == torch.float32


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, "sync returned NoneType, and must return a mapping of names to numbers; return {}"),
        ([1.0], "sync returned list"),
        ({"gap": None}, "sync returned {'gap': None}"),
        ({"gap": "0.5"}, "sync returned {'gap': '0.5'}"),
        ({"gap": torch.zeros(2)}, "sync returned {'gap': tensor("),
        ({0: 1.0}, "sync returned {0: 1.0}"),
    ],
)
def test_what_is_no_figure_of_a_sync_is_named(returned, says):
    with pytest.raises(PluginError) as raised:
        sync_figures(returned)
    assert str(raised.value).startswith(f"sampler: {says}")


def test_figures_of_a_sync_can_be_saved():
    """A checkpoint holds Python's own numbers alone."""
    figures = sync_figures({"a": np.float32(0.5), "b": torch.tensor(0.25), "c": 1, "d": True})
    assert figures == {"a": 0.5, "b": 0.25, "c": 1, "d": 1}
    check_nested(figures)
