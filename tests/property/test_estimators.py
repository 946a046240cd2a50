"""Properties 1 and 2: what the policy gradient estimates, exactly, by enumeration."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebft.baselines.group_mean import GroupMean
from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.baselines.moving_average import MovingAverageBaseline
from ebft.baselines.none import NoBaseline
from ebft.baselines.plain_rloo import PlainRloo
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rewards.kernel import KernelScore, KernelScoreReward, make_kernel
from ebft.rewards.weighted_sum import WeightedSumReward
from ebft.rollout.records import Features
from ebft.scoring.kernels import WITH_BANDWIDTH
from ebft.training.objective import cross_entropy_loss, policy_gradient_loss
from tests.property.enumeration import expected_gradient, gradient_of
from tests.property.strategies import normal, problems, seeds

EXACT = {"atol": 1e-9, "rtol": 1e-9}


def cfm(truth, phi):
    """L_CFM of a policy with probabilities p: Σ_y q_y ‖Σ_v p_v φ_v − φ_y‖²."""
    return lambda p: (truth * (p @ phi - phi).square().sum(1)).sum()


def matching(truth, phi, *, alignment=1.0, diversity=1.0):
    """α_d ‖μ‖² − 2 α_a μ·E φ_y: L_CFM but for a constant if both are 1."""
    return lambda p: (
        diversity * (p @ phi).square().sum() - 2 * alignment * (p @ phi) @ (truth @ phi)
    )


def reward(part):
    return lambda features: part(None, features)


def warm_average():
    baseline = MovingAverageBaseline(decay=0.5)
    baseline.weighted, baseline.weight = 0.7, 0.5
    return baseline


UNBIASED = {"none": NoBaseline, "leave_one_out": LeaveOneOut, "moving_average": warm_average}


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("baseline", UNBIASED)
@settings(max_examples=15)
@given(problem=problems())
def test_the_expected_gradient_is_that_of_the_feature_matching_loss(n, baseline, problem):
    logits, truth, phi = problem
    estimate = expected_gradient(
        logits, truth, phi, n, reward(FeatureMatching()), UNBIASED[baseline]()
    )
    torch.testing.assert_close(estimate, gradient_of(cfm(truth, phi), logits), **EXACT)


@pytest.mark.parametrize("n", [1, 2, 4])
@settings(max_examples=15)
@given(problem=problems(), a=st.floats(0.1, 3), d=st.floats(0, 3))
def test_other_coefficients_have_the_gradient_of_their_own_objective(n, problem, a, d):
    logits, truth, phi = problem
    d = 0.0 if n == 1 else d
    part = FeatureMatching(alignment=a, diversity=d)
    assert part.claim().unbiased == (a == d)
    estimate = expected_gradient(logits, truth, phi, n, reward(part), LeaveOneOut())
    objective = matching(truth, phi, alignment=a, diversity=d)
    torch.testing.assert_close(estimate, gradient_of(objective, logits), **EXACT)


@settings(max_examples=15)
@given(problem=problems(), gamma=st.floats(0, 10))
def test_with_cross_entropy_the_loss_is_the_sum(problem, gamma):
    """L = L_FM + γ L_CE, each part normalised by its own count."""
    logits, truth, phi = problem
    fm = expected_gradient(logits, truth, phi, 3, reward(FeatureMatching()), LeaveOneOut())
    leaf = logits.clone().requires_grad_()
    log_probs = leaf.log_softmax(0).expand(4, -1) * truth * len(truth)
    ce = cross_entropy_loss(log_probs, torch.ones(4, 3, dtype=torch.bool), tokens=12)
    (ce_gradient,) = torch.autograd.grad(ce, leaf)
    total = gradient_of(lambda p: cfm(truth, phi)(p) - gamma * (truth @ p.log()), logits)
    torch.testing.assert_close(fm + gamma * ce_gradient, total, **EXACT)


@settings(max_examples=15)
@given(seed=seeds, ends=st.booleans())
def test_rollouts_of_several_tokens_some_of_which_end_early(seed, ends):
    """The surrogate with reduction `sum` is exact for sequences; `token_mean` is not.

    Outcome v has the tokens (v // 2, v % 2), the second conditional on the first. If token 0
    `ends` a rollout, outcomes 0 and 1 are the same one, of one token.
    """
    first, second = normal(seed, 2), normal(seed + 1, 2, 2)
    phi, truth = normal(seed + 2, 4, 2), normal(seed + 3, 4).softmax(0)
    length = torch.tensor([2, 2, 2, 2])
    if ends:
        length[:2] = 1
        phi[1] = phi[0]

    def log_probs(theta):
        a, b = theta[:2].log_softmax(0), theta[2:].view(2, 2).log_softmax(1)
        tokens = torch.stack([a.repeat_interleave(2), b.flatten()], 1)
        return tokens, torch.arange(2) < length[:, None]

    theta = torch.cat([first, second.flatten()]).requires_grad_()
    tokens, mask = log_probs(theta)
    p = tokens.sum(1).exp()

    n, index = 2, torch.cartesian_prod(*[torch.arange(4)] * 3)
    samples, reference = index[:, :n], index[:, n]
    weight = (p.detach()[samples].prod(1) * truth[reference])[:, None]
    terms = FeatureMatching()(None, Features(phi[samples], phi[reference][:, None]))
    advantages = weight * LeaveOneOut()(terms)
    gradients = {
        reduction: torch.autograd.grad(
            policy_gradient_loss(
                tokens[samples], mask[samples], advantages, contexts=1, reduction=reduction
            ),
            theta,
            retain_graph=True,
        )[0]
        for reduction in ("sum", "token_mean")
    }
    (exact,) = torch.autograd.grad(cfm(truth, phi)(p), theta)
    torch.testing.assert_close(gradients["sum"], exact, **EXACT)
    if not ends:  # the same direction, at half the length
        torch.testing.assert_close(2 * gradients["token_mean"], exact, **EXACT)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@settings(max_examples=15)
@given(problem=problems())
def test_plain_rloo_scales_diversity(n, problem):
    """Its objective has diversity × (n−2)/(n−1): none at n = 2, 2/3 at n = 4."""
    logits, truth, phi = problem
    estimate = expected_gradient(logits, truth, phi, n, reward(FeatureMatching()), PlainRloo())
    biased = matching(truth, phi, diversity=(n - 2) / (n - 1))
    torch.testing.assert_close(estimate, gradient_of(biased, logits), **EXACT)
    bias = estimate - gradient_of(cfm(truth, phi), logits)
    diversity = gradient_of(matching(truth, phi, alignment=0), logits)
    torch.testing.assert_close(bias, -diversity / (n - 1), **EXACT)


@pytest.mark.parametrize("n", [2, 3, 4])
@settings(max_examples=15)
@given(problem=problems())
def test_group_mean_is_plain_rloo_shrunk(n, problem):
    logits, truth, phi = problem
    mean, rloo = (
        expected_gradient(logits, truth, phi, n, reward(FeatureMatching()), baseline)
        for baseline in (GroupMean(), PlainRloo())
    )
    torch.testing.assert_close(mean, rloo * (n - 1) / n, **EXACT)


@pytest.mark.parametrize("baseline", [PlainRloo(), LeaveOneOut()])
@settings(max_examples=15)
@given(problem=problems())
def test_without_pairs_the_two_leave_one_outs_agree_and_are_unbiased(baseline, problem):
    logits, truth, phi = problem
    part = FeatureMatching(diversity=0)
    estimate = expected_gradient(logits, truth, phi, 3, reward(part), baseline)
    objective = matching(truth, phi, diversity=0)
    torch.testing.assert_close(estimate, gradient_of(objective, logits), **EXACT)


@pytest.mark.parametrize("kernel", ["linear", "cosine", "rbf", "multi_rbf", "laplace", "energy"])
@settings(max_examples=10)
@given(problem=problems())
def test_kernel_scores_have_the_gradient_of_their_mmd(kernel, problem):
    logits, truth, phi = problem
    options = {"bandwidth": 1.3} if kernel in WITH_BANDWIDTH else {}
    part = KernelScoreReward(KernelScore(kernel=kernel, **options))
    k = make_kernel(KernelScore(kernel=kernel), 1.3)(phi, phi)
    estimate = expected_gradient(logits, truth, phi, 3, reward(part), LeaveOneOut())
    exact = gradient_of(lambda p: p @ k @ p - 2 * p @ k @ truth, logits)
    torch.testing.assert_close(estimate, exact, **EXACT)


@settings(max_examples=15)
@given(problem=problems(), w=st.tuples(st.floats(0, 2), st.floats(0, 2)))
def test_a_weighted_sum_has_the_sum_of_the_gradients(problem, w):
    logits, truth, phi = problem
    parts = [FeatureMatching(), KernelScoreReward(KernelScore(kernel="energy"))]
    together = WeightedSumReward(list(zip(w, parts, strict=True)))
    estimate = expected_gradient(logits, truth, phi, 3, reward(together), LeaveOneOut())
    each = [expected_gradient(logits, truth, phi, 3, reward(part), LeaveOneOut()) for part in parts]
    torch.testing.assert_close(estimate, w[0] * each[0] + w[1] * each[1], **EXACT)
