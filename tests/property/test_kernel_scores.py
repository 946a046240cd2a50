"""Property 3: kernel scores are proper; strictly so where the kernel or the features allow."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ebft.baselines.none import NoBaseline
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rewards.kernel import KernelScore, KernelScoreReward, make_kernel
from ebft.rollout.records import Features, Terms
from ebft.scoring.kernel_scores import unbiased_cfm, unbiased_kernel_score
from ebft.scoring.kernels import WITH_BANDWIDTH, linear, median_distance
from tests.property.enumeration import expectation, expected_gradient
from tests.property.strategies import distribution, normal, problems, seeds
from tests.tiny import tiny_documents

ALL = ["linear", "cosine", "rbf", "multi_rbf", "laplace", "energy", "polynomial"]
FIVE = Completion(rollout_length=2)(tiny_documents([9] * 5, prompt_length=4))
CHARACTERISTIC = ["rbf", "multi_rbf", "laplace", "energy"]


def reward_of(name, bandwidth=1.0):
    options = {"bandwidth": bandwidth} if name in WITH_BANDWIDTH else {}
    return KernelScoreReward(KernelScore(kernel=name, **options))


def kernel_of(name):
    return make_kernel(KernelScore(kernel=name), bandwidth=1.0)


def loss(kernel, phi, truth):
    """The expected score of reporting p when the truth is `truth`, to be minimised."""
    k = kernel(phi, phi)
    return lambda p: p @ k @ p - 2 * p @ k @ truth


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=50)
@given(seed=seeds, V=st.integers(2, 6), D=st.integers(1, 4))
def test_the_truth_has_the_best_expected_score(name, seed, V, D):
    phi, p, truth = normal(seed, V, D), distribution(seed + 1, V), distribution(seed + 2, V)
    score = loss(kernel_of(name), phi, truth)
    assert score(p) >= score(truth) - 1e-12


@pytest.mark.parametrize("name", CHARACTERISTIC)
@settings(max_examples=50)
@given(seed=seeds, V=st.integers(2, 5))
def test_characteristic_kernels_are_strict_even_on_a_line(name, seed, V):
    """More outcomes than dimensions: no linear kernel could tell all distributions apart."""
    phi, p, truth = normal(seed, V, 1), distribution(seed + 1, V), distribution(seed + 2, V)
    gaps = phi.sort(0).values.diff(dim=0)
    assume(gaps.min() > 0.05)
    assume((p - truth).norm() > 0.1)
    score = loss(kernel_of(name), phi, truth)
    assert score(p) > score(truth) + 1e-9


@settings(max_examples=50)
@given(seed=seeds, V=st.integers(2, 6))
def test_one_hot_features_are_strict(seed, V):
    phi, p, truth = torch.eye(V).double(), distribution(seed, V), distribution(seed + 1, V)
    score = loss(kernel_of("linear"), phi, truth)
    torch.testing.assert_close(score(p) - score(truth), (p - truth).square().sum())


@settings(max_examples=50)
@given(seed=seeds)
def test_a_rank_deficient_linear_map_is_not_strict(seed):
    """Another distribution with the same mean features scores as well as the truth."""
    phi, truth = normal(seed, 4, 2), distribution(seed + 1, 4)
    # A direction that changes neither the total probability nor the mean features.
    null = torch.linalg.svd(torch.cat([phi, torch.ones(4, 1)], 1).mT).Vh[-1]
    p = truth + 0.5 * truth.min() / null.abs().max() * null
    assert (p > 0).all()
    assert (p - truth).norm() > 1e-3 * truth.min()
    score = loss(kernel_of("linear"), phi, truth)
    torch.testing.assert_close(score(p), score(truth), atol=1e-12, rtol=1e-12)
    strict = loss(kernel_of("energy"), phi, truth)
    assert strict(p) > strict(truth)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(problem=problems())
def test_the_gradient_is_zero_at_the_truth(name, problem):
    _, truth, phi = problem
    part = FeatureMatching() if name == "linear" else reward_of(name)
    gradient = expected_gradient(
        truth.log(), truth, phi, 3, lambda features: part(None, features), NoBaseline()
    )
    torch.testing.assert_close(gradient, torch.zeros(3).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(problem=problems(), n=st.integers(2, 4))
def test_the_reported_score_is_unbiased(name, problem, n):
    logits, truth, phi = problem
    p, kernel = logits.softmax(0), kernel_of(name)
    mean = expectation(lambda f: unbiased_kernel_score(f, kernel), p, truth, phi, n)
    exact = loss(kernel, phi, truth)(p) + truth @ kernel(phi, phi).diagonal()
    torch.testing.assert_close(mean, exact)


@settings(max_examples=30)
@given(seed=seeds, name=st.sampled_from(ALL))
def test_kernels_are_positive_definite(seed, name):
    """The energy kernel only for weights that sum to zero, which is what a score needs."""
    phi = normal(seed, 6, 3)
    k = kernel_of(name)(phi, phi)
    if name == "energy":
        centre = torch.eye(6).double() - 1 / 6
        k = centre @ k @ centre
    assert torch.linalg.eigvalsh(k).min() > -1e-9


@settings(max_examples=20)
@given(seed=seeds)
def test_median_bandwidth_is_that_of_the_references(seed):
    samples, references = normal(seed, 5, 3, 2), normal(seed + 1, 5, 1, 2)
    distances = torch.pdist(references.flatten(0, 1)).sort().values
    assert median_distance(references.flatten(0, 1)) == pytest.approx(float(distances[4]))
    part = reward_of("rbf", "median")
    rollouts = SimpleNamespace(contexts=FIVE)
    terms = part(rollouts, Features(samples, references))
    fixed = reward_of("rbf", float(distances[4]))
    torch.testing.assert_close(terms.unary, fixed(None, Features(samples, references)).unary)
    # Whatever the rollouts are, the bandwidth is the same.
    moved = part(rollouts, Features(samples * 100, references))
    same = fixed(None, Features(samples * 100, references))
    torch.testing.assert_close(moved.unary, same.unary)


@pytest.mark.parametrize("name", WITH_BANDWIDTH)
def test_the_median_bandwidth_is_biased(name):
    """So it says, for it is of the references that are scored; a number for it is not."""
    truth, phi, others = distribution(0, 3), normal(1, 3, 1), normal(2, 4, 1, 1)

    def gradient(bandwidth):
        part = reward_of(name, bandwidth)

        def first(samples, reference):
            f = Features(samples.expand(5, -1, -1), torch.cat([reference[None], others]))
            return part(SimpleNamespace(contexts=FIVE), f)

        def reward(f):
            each = [first(*pair) for pair in zip(f.samples, f.references, strict=True)]
            return Terms(
                torch.cat([t.unary[:1] for t in each]), torch.cat([t.pairwise[:1] for t in each])
            )

        return expected_gradient(truth.log(), truth, phi, 2, reward, NoBaseline())

    assert gradient("median").norm() > 1e-4
    assert gradient(1.0).norm() < 1e-12
    assert not KernelScore(kernel=name).claim().unbiased
    assert KernelScore(kernel=name, bandwidth=1.0).claim().unbiased


def test_the_median_bandwidth_does_not_depend_on_who_has_which_context():
    """Of more references than distances are computed of."""
    documents = tiny_documents([150, 180, 120, 210], prompt_length=4)
    plan = Strided(start=2, stride=1, rollout_length=3)
    phi = [normal(i, 300, 1, 8) for i in range(4)]
    totals = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        contexts = plan([documents[i] for i in order])
        counts = torch.bincount(contexts.row).tolist()
        references = torch.cat([phi[i][:count] for i, count in zip(order, counts, strict=True)])
        assert len(references) > 512
        features = Features(references.repeat(1, 2, 1) + 1, references)
        terms = reward_of("rbf", "median")(SimpleNamespace(contexts=contexts), features)
        totals.append(float(terms.unary.sum()))
    assert totals[0] == pytest.approx(totals[1], rel=1e-12)


@given(problem=problems(), n=st.integers(2, 4))
@settings(max_examples=15)
def test_paired_references_are_held_against_their_own_rollout(problem, n):
    """As the reward holds them: the score is the mean reward's negative, and a constant."""
    _, _, phi = problem
    samples = phi[torch.arange(n) % len(phi)][None]
    features = Features(samples, samples.flip(1) + 1, paired=True)
    reward = FeatureMatching()(None, features).reward().mean(1)
    constant = features.references.square().sum(-1).mean(1)
    # The reward counts each pair twice, once in each of its rollouts.
    pairs = samples.sum(1).square().sum(-1) - samples.square().sum((1, 2))
    expected = constant - reward - pairs / (n * (n - 1))
    torch.testing.assert_close(unbiased_cfm(features), expected)
    torch.testing.assert_close(unbiased_kernel_score(features, linear), expected)


def test_no_bandwidth_without_a_distance():
    with pytest.raises(ValueError, match="which is not a bandwidth; give `bandwidth` a number"):
        median_distance(torch.zeros(3, 2))
