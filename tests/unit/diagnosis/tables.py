"""A tabular policy, whose signal and noise are known by enumeration for every n."""

import itertools
from math import factorial, prod

import torch

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.diagnosis.evidence import Evidence, RolloutEvidence
from ebft.diagnosis.shared_tokens import SharedTokens
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features
from ebft.scoring.gradient_signal import gram
from tests.property.strategies import generator, normal


class TabularWorld:
    """C contexts with a policy over V outcomes each; a document is a context with a reference.

    `away` is how far the policy is from the truth: with 0 there is no signal. The gradient of the
    cross-entropy is that of the reference.
    """

    def __init__(self, seed=0, *, C=6, V=4, D=3, away=1.0):
        self.C, self.V = C, V
        truth = normal(seed, C, V)
        self.truth = truth.softmax(1)
        shift = normal(seed + 1, 1, V)  # common to all contexts, else signals cancel in no mean
        self.p = (truth + away * shift).softmax(1)
        self.phi = normal(seed + 2, V, D) / D**0.5

    def gradients(self, c, samples, references):
        """Policy gradients [N, V] of context c in logits that all contexts share."""
        terms = FeatureMatching()(None, Features(self.phi[samples], self.phi[references][:, None]))
        score = torch.eye(self.V).double()[samples] - self.p[c]
        return -(LeaveOneOut()(terms)[..., None] * score).mean(1)

    def exact(self, n):
        """|G|², the documents' noise and the rollouts' noise with n rollouts: over all multisets
        of outcomes, since the order of rollouts changes nothing."""
        counts = [c for c in itertools.product(range(n + 1), repeat=self.V) if sum(c) == n]
        samples = torch.tensor([[v for v, k in enumerate(c) for _ in range(k)] for c in counts])
        ways = torch.tensor(
            [factorial(n) / prod(map(factorial, c)) for c in counts], dtype=torch.float64
        )
        mean, squared, of_means = torch.zeros(self.V).double(), 0.0, 0.0
        for c in range(self.C):
            w = ways * self.p[c][samples].prod(1)
            for y in range(self.V):
                g = self.gradients(c, samples, torch.full((len(samples),), y))
                own = w @ g
                q = self.truth[c, y] / self.C
                mean += q * own
                of_means += float(q * own.square().sum())
                squared += float(q * (w @ g.square().sum(1)))
        signal = float(mean @ mean)
        return signal, of_means - signal, squared - of_means

    def evidence(self, n, documents, seed=0):
        """What would be measured of so many documents, with two sets of n rollouts."""
        rng = generator(seed)
        context = torch.randint(self.C, (documents,), generator=rng)
        reference = torch.multinomial(self.truth[context], 1, generator=rng)
        samples = torch.multinomial(self.p[context], 2 * n, replacement=True, generator=rng)
        sets, union = [], []
        for c, s, y in zip(context.tolist(), samples, reference, strict=True):
            halves = s.view(2, n)
            sets.append(self.gradients(c, halves, y.expand(2)))
            union.append(self.gradients(c, s[None], y))
        both, whole = torch.stack(sets), torch.stack(union)
        ce = (self.p[context] - torch.eye(self.V).double()[reference[:, 0]])[:, None]
        rollouts = RolloutEvidence(
            sets=gram(both, both),
            union=gram(whole, whole)[:, 0, :, 0],
            with_cross_entropy=gram(whole, ce)[:, 0, :, 0],
            spread=None,
            ranks={},
            gap=None,
            length=1.0,
            shared=SharedTokens((0, 1) + (0,) * (2 * n - 1)),
        )
        return Evidence(None, gram(ce, ce)[:, 0, :, 0], rollouts)
