"""The parts of a gradient's noise, held against a tabular model by enumeration."""

import itertools

import pytest
import torch
from hypothesis import given, settings

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features
from ebft.scoring.gradient_signal import (
    RolloutLaw,
    cosine,
    crossed,
    gram,
    signal_of_sets,
    signal_of_union,
)
from ebft.scoring.pairs import PairStatistic
from tests.property.enumeration import outcomes
from tests.property.strategies import normal, seeds

EXACT = {"rel": 1e-9, "abs": 1e-12}


def policy_gradients(logits, phi, truth, n, *, diversity=1.0):
    """All estimated gradients of one context: [V^n, V(truth), V], and their probabilities."""
    V = len(logits)
    drawn = outcomes(V, n)
    samples, reference = drawn[:, :n], drawn[:, n]
    terms = FeatureMatching(diversity=diversity)(
        None, Features(phi[samples], phi[reference][:, None])
    )
    p = logits.softmax(0)
    score = torch.eye(V).double()[samples] - p  # ∇log p(v) = e_v − p
    g = -(LeaveOneOut()(terms)[..., None] * score).mean(1)
    probability = p[samples].prod(1)
    shape = (V**n, V)
    return g.view(*shape, V), probability.view(shape)[:, 0], truth


class World:
    """Two contexts of a tabular policy over two outcomes; a document is a context with a truth."""

    def __init__(self, seed, n):
        self.n, V = n, 2
        logits, phi = normal(seed, 2, V), normal(seed + 1, V, 2)
        truth, of_context = normal(seed + 2, 2, V).softmax(1), normal(seed + 3, 2).softmax(0)
        self.documents = []  # probability, gradients [V^n, 2V], probabilities of the rollouts
        for c, y in itertools.product(range(2), range(V)):
            g, p, q = policy_gradients(logits[c], phi, truth[c], n)
            whole = torch.zeros(len(g), 2, V).double()
            whole[:, c] = g[:, y]
            self.documents.append((of_context[c] * q[y], whole.flatten(1), p))

    def means(self):
        return torch.stack([p @ g for _, g, p in self.documents])

    def weights(self):
        return torch.stack([w for w, _, _ in self.documents])

    def exact(self):
        """|G|², tr Cov E[g | document], E tr Cov(g | document)."""
        means, weights = self.means(), self.weights()
        G = weights @ means
        documents = weights @ (means - G).square().sum(1)
        rollouts = sum(
            w * (p @ (g - m).square().sum(1))
            for (w, g, p), m in zip(self.documents, means, strict=True)
        )
        return float(G @ G), float(documents), float(rollouts)

    def draws(self, sets):
        """Every document with every outcome of its sets of rollouts: probabilities, gradients."""
        probabilities, gradients = [], []
        for w, g, p in self.documents:
            for chosen in itertools.product(range(len(g)), repeat=sets):
                probabilities.append(w * p[list(chosen)].prod())
                gradients.append(g[list(chosen)])
        return torch.stack(probabilities), torch.stack(gradients)


def expectation(statistic, p):
    """The exact mean of a statistic of independent draws: its arrays have every outcome."""
    return float(p @ statistic.own + p @ statistic.pairs @ p)


@settings(max_examples=10)
@given(seed=seeds)
@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("sets", [1, 2])
def test_the_parts_are_estimated_without_bias(sets, n, seed):
    world = World(seed, n)
    p, g = world.draws(sets)
    parts = signal_of_sets(gram(g, g))
    total = [expectation(one, p) for one in vars_of(parts)]
    signal, documents, rollouts = world.exact()
    expected = [signal, documents, rollouts] if sets == 2 else [signal, documents + rollouts, 0.0]
    assert total == pytest.approx(expected, **EXACT)


@settings(max_examples=5)
@given(seed=seeds)
def test_a_union_has_the_noise_of_twice_the_rollouts(seed):
    """Two sets of three rollouts, and the six of them together."""
    three, six = World(seed, n=3), World(seed, n=6)
    found = torch.zeros(3, dtype=torch.float64)
    for (w, g, p), (_, whole, _) in zip(three.documents, six.documents, strict=True):
        index = torch.arange(len(g))
        for a, b in itertools.product(index.tolist(), repeat=2):
            # Outcomes are in lexical order: the six rollouts are those of a, then those of b.
            sets, union = g[[a, b]][None], whole[a * len(g) + b][None, None]
            parts, of_six = signal_of_union(gram(sets, sets), gram(union, union)[:, 0, :, 0])
            # Of one document there are no pairs: what does not need them.
            own = torch.stack([parts.documents.own[0], parts.rollouts.own[0], of_six.own[0]])
            found += w * p[a] * p[b] * own
    signal, documents, rollouts = three.exact()
    assert found[0] == pytest.approx(signal + documents, **EXACT)
    assert found[1] == pytest.approx(rollouts, **EXACT)
    assert found[2] == pytest.approx(six.exact()[2], **EXACT)
    assert six.exact()[:2] == pytest.approx((signal, documents), **EXACT)


def test_the_signal_of_a_union_is_that_of_its_pairs():
    sets, union = normal(0, 5, 2, 3), normal(1, 5, 1, 3)
    parts, _ = signal_of_union(gram(sets, sets), gram(union, union)[:, 0, :, 0])
    between = sum(float(union[k, 0] @ union[m, 0]) for k in range(5) for m in range(5) if k != m)
    assert parts.signal.value == pytest.approx(between / 20)
    within = sum(float(sets[k, 0] @ sets[k, 1]) for k in range(5)) / 5
    assert parts.documents.value == pytest.approx(within - between / 20)
    noise = parts.documents.value + parts.rollouts.value
    assert parts.noise.value == pytest.approx(noise)
    assert parts.of_step(4) == pytest.approx(parts.signal.value + noise / 4)


def test_clusters_reach_every_part():
    clusters = torch.tensor([0, 0, 1, 2, 2])
    sets, union = normal(0, 5, 2, 3), normal(1, 5, 1, 3)
    parts, more = signal_of_union(gram(sets, sets), gram(union, union)[:, 0, :, 0], clusters)
    each = [parts.signal, parts.documents, parts.rollouts, more, parts.noise]
    each += vars_of(signal_of_sets(gram(sets, sets), clusters))
    each += [crossed(gram(sets, union), clusters)]
    assert all(torch.equal(one.clusters, clusters) for one in each)


def vars_of(parts):
    return [parts.signal, parts.documents, parts.rollouts]


@pytest.mark.parametrize("n", [2, 3])
@settings(max_examples=5)
@given(seed=seeds)
def test_the_law_of_rollouts_is_exact_for_rewards_of_single_rollouts(n, seed):
    logits, phi, truth = normal(seed, 2), normal(seed + 1, 2, 2), normal(seed + 2, 2).softmax(0)
    exact = {m: noise_of(logits, phi, truth, m, diversity=0.0) for m in (2, 3, 4, 5, 6, 8)}
    law = RolloutLaw.fit(n, statistic(exact[n]), statistic(exact[2 * n]))
    for m, expected in exact.items():
        assert law.at(m).value == pytest.approx(expected, **EXACT)


@settings(max_examples=5)
@given(seed=seeds)
def test_the_law_is_close_with_pairs(seed):
    """From n = 4 and 8 of a feature-matching reward: within a quarter up to n = 12."""
    logits, phi, truth = normal(seed, 2), normal(seed + 1, 2, 2), normal(seed + 2, 2).softmax(0)
    exact = {m: noise_of(logits, phi, truth, m) for m in (4, 6, 8, 12)}
    law = RolloutLaw.fit(4, statistic(exact[4]), statistic(exact[8]))
    for m, expected in exact.items():
        assert law.at(m).value == pytest.approx(expected, rel=0.25)


def statistic(value):
    return PairStatistic.of_documents(torch.full((4,), value, dtype=torch.float64))


def noise_of(logits, phi, truth, n, *, diversity=1.0):
    g, p, q = policy_gradients(logits, phi, truth, n, diversity=diversity)
    mean = (p[:, None, None] * g).sum(0)
    return float((p[:, None] * q * (g - mean).square().sum(2)).sum())


@pytest.mark.parametrize("n", [0, 1])
def test_one_rollout_follows_no_law(n):
    with pytest.raises(ValueError, match="law"):
        RolloutLaw.fit(n, statistic(1.0), statistic(0.5))
    with pytest.raises(ValueError, match="law"):
        RolloutLaw.fit(2, statistic(1.0), statistic(0.5)).at(n)


@settings(max_examples=10)
@given(seed=seeds)
def test_products_of_two_gradients(seed):
    ours, theirs = normal(seed, 4, 2, 3) + 3, normal(seed + 1, 4, 1, 3) + 2
    between = [
        float(ours[k, h] @ theirs[m, 0])
        for k in range(4)
        for m in range(4)
        if k != m
        for h in range(2)
    ]
    product = crossed(gram(ours, theirs))
    assert product.value == pytest.approx(sum(between) / len(between))
    squares = [signal_of_sets(gram(x, x)).signal for x in (ours, theirs)]
    expected = product.value / (squares[0].value * squares[1].value) ** 0.5
    assert cosine(*squares, product) == pytest.approx(expected)
    assert cosine(-1.0 * squares[0], squares[1], product) != cosine(*squares, product)
