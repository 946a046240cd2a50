"""Property 6: what each whitening does to a context's rollouts, and to the gradient."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.errors import NumericalError
from ebft.features.hidden_states import HiddenStates
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features
from ebft.rollout.strided import Strided
from ebft.samplers.hf_tree import HfTree
from ebft.transforms.gram import eigh, gram_roots
from ebft.transforms.l2 import L2, l2
from ebft.transforms.project import Project, projection
from ebft.transforms.whiten_context_authors import WhitenContextAuthors
from ebft.transforms.whiten_context_paper import WhitenContextPaper, whiten_context
from ebft.transforms.whiten_running import RunningWhitening, WhitenRunning, inverse_root
from tests.property.enumeration import expected_gradient, gradient_of
from tests.property.strategies import normal, problems, seeds
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

PER_CONTEXT = {"paper": WhitenContextPaper(), "authors": WhitenContextAuthors()}
counts = st.integers(2, 5)


def features(seed, n, P=3, m=1, D=8):
    return Features(normal(seed, P, n, D), normal(seed + 1, P, m, D))


def gram(f):
    return f.samples @ f.samples.mT


def scale(name, n):
    """The paper divides the covariance by n, the authors' code does not."""
    return n if name == "paper" else 1


@pytest.mark.parametrize("name", PER_CONTEXT)
@settings(max_examples=25)
@given(seed=seeds, n=counts)
def test_independent_rollouts_become_orthogonal_and_diversity_vanishes(name, seed, n):
    f = PER_CONTEXT[name](features(seed, n))
    expected = scale(name, n) * torch.eye(n).double().expand(3, n, n)
    torch.testing.assert_close(gram(f), expected, atol=1e-7, rtol=1e-7)
    diversity = FeatureMatching(alignment=0)(None, f).reward()
    assert diversity.abs().max() < 1e-6


@pytest.mark.parametrize("name", PER_CONTEXT)
@settings(max_examples=25)
@given(seed=seeds, copies=st.integers(2, 4), others=st.integers(0, 3))
def test_of_k_equal_rollouts_each_pair_has_1_kth(name, seed, copies, others):
    f = features(seed, 1 + others)
    repeats = torch.tensor([copies] + [1] * others)
    duplicated = Features(f.samples.repeat_interleave(repeats, 1), f.references)
    n = copies + others
    g = gram(PER_CONTEXT[name](duplicated))
    same = torch.arange(n) < copies
    expected = torch.where(same[:, None] & same, 1 / copies, torch.eye(n).double())
    torch.testing.assert_close(g[0], scale(name, n) * expected, atol=1e-7, rtol=1e-7)


@settings(max_examples=25)
@given(seed=seeds, n=counts, m=st.integers(1, 3))
def test_the_paper_s_is_the_covariance_s_pseudo_inverse_root(seed, n, m):
    """By the D × D matrix of the definition, for rollouts and references."""
    f = features(seed, n, m=m)
    samples, references = whiten_context(f.samples, f.references)
    sigma = f.samples.mT @ f.samples / n
    values, vectors = torch.linalg.eigh(sigma)
    kept = values > 1e-9 * values.amax(-1, keepdim=True)
    inverse = torch.where(kept, values.where(kept, 1).rsqrt(), 0)
    root = (vectors * inverse[:, None]) @ vectors.mT
    torch.testing.assert_close(samples, f.samples @ root, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(references, f.references @ root, atol=1e-7, rtol=1e-7)


@settings(max_examples=25)
@given(seed=seeds, n=counts)
def test_the_authors_references_are_multiples_of_the_raw_one(seed, n):
    f = features(seed, n)
    whitened = WhitenContextAuthors()(f)
    assert whitened.paired
    assert whitened.references.shape == f.samples.shape
    cosine = torch.cosine_similarity(whitened.references, f.references, dim=-1).abs()
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    # Each rollout is compared with its own multiple.
    unary = FeatureMatching()(None, whitened).unary
    expected = 2 * (whitened.samples * whitened.references).sum(-1)
    torch.testing.assert_close(unary, expected)
    unit = WhitenContextAuthors(normalize=True)(f)
    torch.testing.assert_close(unit.samples.norm(dim=-1), torch.ones(3, n).double())


@settings(max_examples=10)
@given(problem=problems(D=3))
def test_whitening_by_rollouts_is_biased(problem):
    """So each says, and so it is: the expected gradient is not that of L_CFM."""
    logits, truth, phi = problem
    for transform in PER_CONTEXT.values():
        assert not transform.claim().unbiased
        estimate = expected_gradient(
            logits, truth, phi, 2, lambda f, t=transform: FeatureMatching()(None, t(f)),
            LeaveOneOut(),
        )  # fmt: skip
        exact = gradient_of(lambda p: (truth * (p @ phi - phi).square().sum(1)).sum(), logits)
        assert (estimate - exact).norm() > 1e-6 * exact.norm()


@pytest.mark.parametrize("decay", [None, 0.5])
@settings(max_examples=10)
@given(problem=problems(D=2), seed=seeds)
def test_running_whitening_keeps_the_gradient_unbiased(decay, problem, seed):
    """With the moment of earlier steps, whatever this step's rollouts are."""
    logits, truth, phi = problem
    past = normal(seed, 6, 2)
    root = inverse_root(past.mT @ past / 6, shrinkage=0.2)

    def whitened(f):
        running = RunningWhitening(WhitenRunning(decay=decay, shrinkage=0.2, refresh_every=1))
        running.load_state_dict({"moment": past.mT @ past / 6, "weight": 1.0, "root": root,
                                 "step": 1})  # fmt: skip
        return FeatureMatching()(None, running(f))

    estimate = expected_gradient(logits, truth, phi, 3, whitened, LeaveOneOut())
    w = phi @ root
    exact = gradient_of(lambda p: (truth * (p @ w - w).square().sum(1)).sum(), logits)
    torch.testing.assert_close(estimate, exact, atol=1e-9, rtol=1e-9)


def test_the_first_step_of_running_whitening_is_biased():
    """So it says: where the policy is the truth, the expected gradient is not zero."""
    assert not WhitenRunning().claim().unbiased
    truth, phi, others = normal(0, 3).softmax(0), normal(1, 3, 2), normal(2, 4, 1, 2)

    def first(samples, reference):
        f = Features(samples.expand(5, -1, -1), torch.cat([reference[None], others]))
        return RunningWhitening(WhitenRunning())(f)

    def whitened(f):
        each = [first(*pair) for pair in zip(f.samples, f.references, strict=True)]
        samples, references = (
            torch.cat([getattr(it, name)[:1] for it in each]) for name in ("samples", "references")
        )
        return FeatureMatching()(None, Features(samples, references))

    assert expected_gradient(truth.log(), truth, phi, 2, whitened, LeaveOneOut()).norm() > 1e-3


class TestRunning:
    def test_the_moment_is_of_references_and_of_steps_before(self):
        running = RunningWhitening(WhitenRunning(decay=0.5, refresh_every=1, shrinkage=1e-6))
        first, second, third = (features(seed, 2, P=40, D=3) for seed in (0, 10, 20))
        running(first)
        moments = [f.references[:, 0].mT @ f.references[:, 0] / 40 for f in (first, second)]
        expected = (0.25 * moments[0] + 0.5 * moments[1]) / 0.75
        running(second)
        out = running(third)
        root = inverse_root(expected, shrinkage=1e-6)
        torch.testing.assert_close(out.samples, third.samples @ root, atol=1e-5, rtol=1e-4)
        moved = Features(third.samples * 100, third.references)
        state = running.state_dict()
        again = RunningWhitening(WhitenRunning(decay=0.5, refresh_every=1, shrinkage=1e-6))
        again.load_state_dict(state)
        torch.testing.assert_close(again(moved).references, running(third).references)

    def test_references_come_out_white_and_of_norm_one(self):
        f = features(0, 2, P=4000, D=4)
        mixed = Features(f.samples, f.references @ normal(1, 4, 4))
        out = RunningWhitening(WhitenRunning(shrinkage=1e-6))(mixed)
        second = out.references[:, 0].mT @ out.references[:, 0] / 4000
        torch.testing.assert_close(second, torch.eye(4).double() / 4, atol=1e-3, rtol=0)

    @pytest.mark.parametrize("decay", [None, 0.5])
    def test_it_freezes_with_all_steps_before(self, decay):
        running = RunningWhitening(WhitenRunning(decay=decay, refresh_every=9, freeze_after=2))
        inputs = [features(seed, 2, P=20, D=3) for seed in range(0, 50, 10)]
        outputs = [running(f) for f in inputs]
        roots = [torch.linalg.lstsq(f.references[:, 0], o.references[:, 0]).solution
                 for f, o in zip(inputs, outputs, strict=True)]  # fmt: skip
        torch.testing.assert_close(roots[3], roots[2], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(roots[4], roots[2], atol=1e-4, rtol=1e-4)
        assert (roots[1] - roots[2]).norm() > 1e-2
        first, second = (f.references[:, 0].mT @ f.references[:, 0] / 20 for f in inputs[:2])
        moment = (first + second) / 2 if decay is None else (first + 2 * second) / 3
        torch.testing.assert_close(
            roots[2], inverse_root(moment, shrinkage=0.1), atol=1e-4, rtol=1e-4
        )

    def test_it_resumes(self):
        inputs = [features(seed, 2, P=20, D=3) for seed in range(0, 60, 10)]
        whole = RunningWhitening(WhitenRunning(decay=0.9, refresh_every=2))
        expected = [whole(f) for f in inputs]
        part = RunningWhitening(WhitenRunning(decay=0.9, refresh_every=2))
        for f in inputs[:3]:
            part(f)
        resumed = RunningWhitening(WhitenRunning(decay=0.9, refresh_every=2))
        resumed.load_state_dict(part.state_dict())
        for f, e in zip(inputs[3:], expected[3:], strict=True):
            torch.testing.assert_close(resumed(f).samples, e.samples, atol=0, rtol=0)

    def test_zero_features_have_no_inverse(self):
        with pytest.raises(ValueError, match="all zero"):
            inverse_root(torch.zeros(3, 3), shrinkage=0.1)


@pytest.mark.parametrize("combine", ["stack", "concat"])
def test_the_authors_whiten_layers_apart_where_they_are_stacked(combine):
    """Each layer as if it were the only one; side by side they are one vector."""
    resources, depths = tiny_resources(tiny_policy()), (0.25, 0.5, 1.0)
    contexts = Strided(start=3, stride=4, rollout_length=5)(tiny_documents([19, 12]))
    rollouts = HfTree(n=3).build(resources)(contexts, step=0)

    def whitened(depths, combine="concat"):
        features = HiddenStates(depths=depths, combine=combine).build(resources)(rollouts)
        return WhitenContextAuthors()(features)

    ours, each = whitened(depths, combine), [whitened((depth,)) for depth in depths]
    apart = [torch.cat([getattr(it, which) for it in each], -1) / 3**0.5
             for which in ("samples", "references")]  # fmt: skip
    alike = [torch.allclose(getattr(ours, which), expected, atol=1e-7)
             for which, expected in zip(("samples", "references"), apart, strict=True)]  # fmt: skip
    assert alike == [combine == "stack"] * 2
    assert (ours.layers, ours.stacked) == (3, combine == "stack")


@pytest.mark.parametrize(
    "transform", [WhitenContextPaper(), RunningWhitening(WhitenRunning())], ids=["paper", "running"]
)
def test_what_mixes_layers_leaves_none(transform):
    f = replace(features(0, 3), layers=2, stacked=True)
    out = transform(f)
    assert (out.layers, out.stacked) == (1, False)


@settings(max_examples=25)
@given(seed=seeds, layers=st.integers(1, 3))
def test_l2_is_of_norm_one_jointly_or_by_layer(seed, layers):
    f = Features(normal(seed, 2, 3, 6 * layers), normal(seed + 1, 2, 1, 6 * layers), layers=layers)
    for over in ("joint", "layer"):
        out = L2(over=over)(f)
        torch.testing.assert_close(out.samples.norm(dim=-1), torch.ones(2, 3).double())
        torch.testing.assert_close(out.references.norm(dim=-1), torch.ones(2, 1).double())
    blocks = L2(over="layer")(f).samples.unflatten(-1, (layers, 6)).norm(dim=-1)
    torch.testing.assert_close(blocks, torch.full_like(blocks, layers**-0.5))
    assert l2(torch.zeros(2, 4)).tolist() == [[0.0] * 4] * 2


def test_projections_keep_dot_products_on_average():
    f = features(0, 2, P=1, D=5)
    exact = (f.samples @ f.references.mT).flatten()
    samples = torch.stack([
        ((f.samples @ projection(5, 16, seed)) @ (f.references @ projection(5, 16, seed)).mT)
        .flatten() for seed in range(4000)
    ])  # fmt: skip
    error = samples.std(0) / 4000**0.5
    assert ((samples.mean(0) - exact).abs() < 4 * error).all()


def test_a_projection_is_the_same_for_the_whole_run():
    resources = tiny_resources(None, seed=3)
    f = features(0, 2)
    projected = Project(dimensions=4).build(resources)
    first, again = projected(f), projected(f)
    assert first.samples.shape == (3, 2, 4)
    assert torch.equal(first.samples, again.samples)
    other = Project(dimensions=4, seed=9).build(resources)(f)
    assert not torch.equal(first.samples, other.samples)


def test_a_factorisation_that_fails_raises():
    with pytest.raises(NumericalError, match="eigenvalues of the Gram matrix"):
        eigh(torch.full((2, 2), float("nan")), "the Gram matrix")


def test_rollouts_without_features_have_no_directions():
    inverse, _ = gram_roots(torch.zeros(1, 3, 4))
    assert inverse.tolist() == [[0.0, 0.0, 0.0]]
