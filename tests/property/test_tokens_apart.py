"""Per-token rewards: the gradient of the same loss as tokens side by side, with less noise."""

import pytest
import torch
from hypothesis import given, settings

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.baselines.none import NoBaseline
from ebft.distributed.processes import ONE_PROCESS
from ebft.errors import UserError
from ebft.features.concat import Concat
from ebft.features.hidden_states import HiddenStates
from ebft.plans.strided import Strided
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import sample_and_score
from ebft.training.objective import advantages_to_go, policy_gradient_loss
from ebft.training.parts import RolloutParts
from ebft.transforms.l2 import L2
from tests.property.strategies import normal, seeds
from tests.tiny import tiny_documents, tiny_policy, tiny_resources

D = 2


def problem(seed):
    """Log-probs of the four outcomes' two tokens, their features token by token, a ground truth.

    Outcome v has the tokens (v // 2, v % 2); features of the first know nothing of the second.
    """
    theta = normal(seed, 6).requires_grad_()
    a, b = theta[:2].log_softmax(0), theta[2:].view(2, 2).log_softmax(1)
    tokens = torch.stack([a.repeat_interleave(2), b.flatten()], 1)
    first = normal(seed + 1, 2, D).repeat_interleave(2, 0)
    phi = torch.cat([first, normal(seed + 2, 4, D)], 1)
    return theta, tokens, phi, normal(seed + 3, 4).softmax(0)


def gradients(theta, tokens, phi, truth, n, baseline, apart):
    """The estimate in each of the 4ⁿ⁺¹ draws of n rollouts and a reference, and its probability."""
    drawn = torch.cartesian_prod(*[torch.arange(4)] * (n + 1))
    samples, reference = drawn[:, :n], drawn[:, n]
    weight = tokens.detach().sum(1).exp()[samples].prod(1) * truth[reference]
    features = Features(phi[samples], phi[reference][:, None], per_token=apart)
    terms = FeatureMatching()(None, features.by_token(2) if apart else features)
    advantages = baseline(terms)
    if apart:
        advantages = advantages_to_go(advantages, 2)
    mask = torch.ones(1, n, 2, dtype=torch.bool)
    each = [
        torch.autograd.grad(
            policy_gradient_loss(tokens[s][None], mask, A[None], contexts=1, reduction="sum"),
            theta, retain_graph=True,
        )[0]
        for s, A in zip(samples, advantages, strict=True)
    ]  # fmt: skip
    return torch.stack(each), weight


@pytest.mark.parametrize("baseline", [NoBaseline(), LeaveOneOut()], ids=["none", "leave_one_out"])
@settings(max_examples=5)
@given(seed=seeds)
def test_the_expected_gradient_is_that_of_the_sum_over_tokens(baseline, seed):
    theta, tokens, phi, truth = problem(seed)
    p = tokens.sum(1).exp()
    loss = (truth * (p @ phi - phi).square().sum(1)).sum()
    (exact,) = torch.autograd.grad(loss, theta, retain_graph=True)
    for apart in (True, False):
        each, weight = gradients(theta, tokens, phi, truth, 2, baseline, apart)
        torch.testing.assert_close(weight @ each, exact, atol=1e-9, rtol=1e-9)


def test_what_was_rewarded_before_a_token_is_only_noise_to_it():
    total = {True: 0.0, False: 0.0}
    for seed in range(5):
        for apart in total:
            each, weight = gradients(*problem(seed), 2, LeaveOneOut(), apart)
            total[apart] += float(weight @ each.square().sum(1))
    assert total[True] < 0.9 * total[False]


def test_each_row_is_a_token_of_a_context():
    samples = torch.arange(2 * 3 * 4 * 5).view(2, 3, 20).float()
    by_token = Features(samples, samples[:, :1] + 0.5, layers=5, per_token=True).by_token(4)
    assert (by_token.per_token, by_token.layers) == (False, 5)
    for p in range(2):
        for t in range(4):
            block = slice(5 * t, 5 * t + 5)
            assert torch.equal(by_token.samples[4 * p + t], samples[p, :, block])
            assert torch.equal(by_token.references[4 * p + t], samples[p, :1, block] + 0.5)


def scored_with(feature_map, contexts, *transforms):
    resources = tiny_resources(tiny_policy())
    parts = RolloutParts(
        HfTree(n=3).build(resources), feature_map.build(resources), transforms,
        FeatureMatching(), LeaveOneOut(),
    )  # fmt: skip
    return sample_and_score(parts, contexts, ONE_PROCESS, step=0)


def test_through_the_loop_tokens_apart_are_rewarded_as_much_as_side_by_side():
    """The first token's advantage to go is the whole rollout's where nothing is normalised."""
    contexts = Strided(start=3, stride=4, rollout_length=5)(tiny_documents([19, 12]))

    def scored(pooling, *transforms):
        return scored_with(HiddenStates(pooling=pooling), contexts, *transforms)

    apart, whole = scored("each"), scored("all")
    P = len(contexts)
    assert apart.rows_per_context == 5
    assert apart.advantages.shape == (P, 3, 5)
    torch.testing.assert_close(apart.reward(), whole.reward())
    torch.testing.assert_close(apart.advantages[..., 0], whole.advantages)
    # Transforms see tokens: each of norm 1 with its layers of norm 1/√3.
    layers = scored("each", L2(over="layer")).features.samples.unflatten(-1, (3, -1))
    torch.testing.assert_close(layers.norm(dim=-1), torch.full(layers.shape[:-1], 3**-0.5).double())


def test_a_single_token_is_the_whole_rollout():
    contexts = Strided(start=3, stride=4, rollout_length=1)(tiny_documents([19, 12]))
    each = HiddenStates(pooling="each")
    beside_itself = Concat(maps=[{"feature_map": each}, {"feature_map": each, "weight": 3.0}])
    whole = scored_with(HiddenStates(pooling="last"), contexts)
    for feature_map, weight in ((each, 1.0), (beside_itself, 4.0)):
        scored = scored_with(feature_map, contexts)
        assert scored.rows_per_context == 1
        torch.testing.assert_close(scored.advantages, weight * whole.advantages)


def test_single_tokens_are_not_put_beside_others():
    contexts = Strided(start=3, stride=4, rollout_length=2)(tiny_documents([19]))
    maps = [{"feature_map": HiddenStates(pooling=pooling)} for pooling in ("each", "last")]
    with pytest.raises(UserError, match="concat cannot put features of single tokens"):
        scored_with(Concat(maps=maps), contexts)
