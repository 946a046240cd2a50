"""Property 9, function by function: the authors' numbers from ours."""

from dataclasses import replace

import pytest
import torch
from transformers import PretrainedConfig

from ebft.baselines.group_normalised import GroupNormalised
from ebft.baselines.leave_one_out import leave_one_out
from ebft.models.log_probs import token_log_probs
from ebft.plans.strided import Strided
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features, Terms
from ebft.rollout.tree import grow
from ebft.samplers.hf_tree import HfTree
from ebft.scoring.kernels import cosine, linear
from ebft.training.objective import cross_entropy_loss, policy_gradient_loss
from ebft.transforms.whiten_context_authors import WhitenContextAuthors
from tests.golden.authors import (
    by_context,
    by_rollout,
    cases,
    resources,
    rollouts_of,
    tensors,
    tiny_model,
)  # fmt: skip

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def contexts_of(values):
    """Their `(…, n, K, …, D)` with samples in dimension 2 → `[P, n, D]`."""
    return values.movedim(2, -2).flatten(0, -3)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("case", ["full5", "full7", "dup5"])
def test_whitening(case, normalize):
    data = tensors("whitening")
    references = contexts_of(data[f"{case}.in_gt"])
    assert (references == references[:, :1]).all(), "n copies of one reference"
    features = Features(contexts_of(data[f"{case}.in_gen"]), references[:, :1])
    ours = WhitenContextAuthors(normalize=normalize)(features)
    out = f"{case}.norm{int(normalize)}"
    torch.testing.assert_close(ours.samples, contexts_of(data[f"{out}.out_gen"]), **CLOSE)
    torch.testing.assert_close(ours.references, contexts_of(data[f"{out}.out_gt"]), **CLOSE)


@pytest.mark.parametrize("case", ["unit", "raw", "n2", "n1", "token"])
def test_rewards(case):
    """Theirs are before the factor 2; `token` scores every token as a rollout of its own."""
    data = tensors("rewards")
    features = Features(
        contexts_of(data[f"{case}.in_gen"]), contexts_of(data[f"{case}.in_gt"]), paired=True
    )
    terms = FeatureMatching(alignment_similarity="cosine")(None, features)
    n = features.samples.shape[1]
    align, div = (data[f"{case}.{key}"].movedim(2, -1).flatten(0, -2) for key in ("align", "div"))
    torch.testing.assert_close(terms.unary, 2 * align, **CLOSE)
    torch.testing.assert_close(terms.pairwise.sum(-1) / max(n - 1, 1), -2 * div, **CLOSE)


def terms_with_sums(unary, diversity):
    """Terms whose pairwise parts have the given means Σ_j' k_jj'/(n−1) = −diversity."""
    n = unary.shape[1]
    if n == 2:
        pairwise = diversity[:, :, None].expand(-1, 2, 2)
    else:  # k_ij = s_i + s_j off the diagonal
        s = ((n - 1) * diversity - diversity.sum(1, keepdim=True) * (n - 1) / (2 * n - 2)) / (n - 2)
        pairwise = s[:, :, None] + s[:, None]
    pairwise = pairwise * (1 - torch.eye(n))
    return Terms(unary, -pairwise)


@pytest.mark.parametrize("case", cases("baseline"), ids=lambda case: case["case"])
def test_leave_one_out(case):
    data, name, n = tensors("baseline"), case["case"], case["n"]
    gt, div, expected = (data[f"{name}.{key}"] for key in ("gt", "div", "baseline"))
    if gt.dim() == 4:  # tokens as blocks
        gt, div, expected = (x.flatten(2) for x in (gt, div, expected))
    terms = terms_with_sums(
        case["alignment_rew_coef"] * by_context(gt, n),
        case["diversity_rew_coef"] * by_context(div, n),
    )
    torch.testing.assert_close(
        -terms.pairwise.sum(-1) / (n - 1),
        case["diversity_rew_coef"] * by_context(div, n), **CLOSE,
    )  # fmt: skip
    torch.testing.assert_close(leave_one_out(terms), by_context(expected, n), **CLOSE)


@pytest.mark.parametrize("case", cases("advantages"), ids=lambda case: case["case"])
@pytest.mark.parametrize("part", ["mb0", "mb1"])
def test_advantages(case, part):
    data = tensors("advantages")
    name, n, G = case["case"], case["n"], case["G"]
    get = {key: data[f"{name}.{part}.{key}"] for key in ("advantages", "gt", "div")}
    tokens = get["advantages"][:, -case["K"] * G :]
    by_token = by_rollout(tokens, case["B"] // n, n, G)
    if name == "a4":
        # Theirs: token rewards are written block-major into step-major slots, so a token gets the
        # advantage of another one. Every token of ours has its own (test_normalisation.py).
        own = by_context((get["gt"] - get["div"]).flatten(1), n)
        assert not torch.allclose(by_token.flatten(), own.flatten(), atol=1e-2)
        return
    assert (by_token == by_token[..., :1]).all(), "a rollout's tokens share its advantage"
    terms = terms_with_sums(
        by_context(get["gt"], n), case["diversity_rew_coef"] * by_context(get["div"], n)
    )
    reward = terms.reward()
    match case["estimator"]:
        case "rloo":
            ours = reward - leave_one_out(terms)
        case "reinforce":
            ours = reward
        case "group_norm":
            # Theirs: leave-one-out, divided by the deviation over the *blocks* of one row instead
            # of over a context's samples. `group_normalised` does what the name says.
            rows = (get["gt"] - get["div"]).std(-1, keepdim=True).expand_as(get["gt"])
            theirs = (reward - leave_one_out(terms)) / by_context(rows, n)
            torch.testing.assert_close(theirs, by_token[..., 0], **CLOSE)
            ours = GroupNormalised()(terms)
            torch.testing.assert_close(ours.std(1), torch.ones(len(ours)), **CLOSE)
            return
    torch.testing.assert_close(ours, by_token[..., 0], **CLOSE)


@pytest.mark.parametrize("qa", [0, 1])
def test_policy_loss(qa):
    """One row is one rollout here. `gspo` changes nothing on policy but the masked case, below."""
    data = tensors("policy_loss")
    log_probs = data["log_probs"].clone().requires_grad_()
    action, everything = data["action_mask"].bool(), torch.ones(3, 11, dtype=torch.bool)
    rows = slice(0, 3) if qa else slice(0, 4)  # the last row has no answer: see below
    keep = data["qa_masks"].bool()[rows] if qa else torch.ones(4, 11, dtype=torch.bool)
    mask, prompt = (action[rows] & keep), ~action[rows] & keep
    # Their advantage is a token's; a rollout of ours has one, so each token is a rollout of G = 1
    # whose weight is that of a token in its row's mean.
    weight = mask.sum(1, keepdim=True)
    advantages = torch.where(mask, data["advantages"][rows] / weight, 0) * 11
    loss = policy_gradient_loss(
        log_probs[rows][..., None], mask[..., None], advantages, contexts=4, reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, log_probs)
    expected = data[f"ppo.qa{qa}.grad_rl"].clone()
    if qa:
        # Theirs: a row without answer tokens falls back to the mean over all of them, instead of
        # not counting; no document of ours is without a completion.
        assert expected[3].abs().sum() > 0
        expected[3] = 0
    torch.testing.assert_close(gradient, expected, **CLOSE)

    log_probs = data["log_probs"].clone().requires_grad_()
    counts = prompt.sum(1, keepdim=True)
    # Theirs is a mean over rows of each row's mean; ours is one mean over all tokens.
    ce = sum(
        cross_entropy_loss(log_probs[[i]], prompt[[i]], tokens=int(counts[i])) / 4
        for i in range(len(counts))
    )
    (gradient,) = torch.autograd.grad(ce, log_probs)
    expected = data[f"ppo.qa{qa}.grad_ce"].clone()
    if qa:
        expected[3] = 0
    torch.testing.assert_close(gradient, expected, **CLOSE)
    assert everything.all()


class Head(torch.nn.Module):
    """A decoder whose logits are its hidden states."""

    config = PretrainedConfig()

    def __init__(self, size):
        super().__init__()
        self.embedding = torch.nn.Embedding(size, size)
        self.linear = torch.nn.Linear(size, size, bias=False)
        torch.nn.init.eye_(self.linear.weight)

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.linear


def test_log_probs():
    """At temperature 1, and at 0.6 for the generated tokens, which start at number 4."""
    data = tensors("log_probs")
    logits, labels = data["lp_logits"].flatten(0, 1), data["lp_labels"].flatten()
    one, cooler = (
        token_log_probs(Head(17), logits, labels, temperature).view(2, 9)
        for temperature in (1.0, 0.6)
    )
    torch.testing.assert_close(one, data["lp_T1"], **CLOSE)
    mixed = torch.cat([one[:, :4], cooler[:, 4:]], 1)
    torch.testing.assert_close(mixed, data["lp_T06"], **CLOSE)


@pytest.mark.parametrize("case", ["greedy", "greedy_overlap"])
def test_generation(case):
    """Greedy, as the limit of a temperature towards 0."""
    (meta,) = [m for m in cases("generation") if m["case"] == case]
    data, policy = tensors("generation"), tiny_model("tiny_policy")
    prompts, rows = data[f"{case}.prompts"], data[f"{case}.full_sequences"]
    G = meta["generate_length"]
    plan = Strided(start=meta["context_length"], stride=meta["stride"], rollout_length=G)
    expected = rollouts_of(prompts, rows[:, prompts.shape[1] :], plan, 1, 1.0)
    sampler = HfTree(n=1, temperature=1e-5).build(resources(policy, None))
    object.__setattr__(sampler._resources, "tokenizer", None)
    ours = sampler(expected.contexts, step=0)
    assert torch.equal(ours.tokens, expected.tokens)


@pytest.mark.parametrize(
    "case",
    [c for c in cases("strided_mask")
     if c["generation_step"] == c["max_generation_length"] and not c["document_masking"]],
    ids=lambda c: f"P{c['prompt_length']}-s{c['stride']}-G{c['max_generation_length']}",
)  # fmt: skip
def test_the_tree_s_mask_is_theirs_in_another_order(case):
    P, G, K = case["prompt_length"], case["max_generation_length"], case["num_blocks"]
    plan = Strided(start=case["context_length"], stride=case["stride"], rollout_length=G)
    prompts, generated = torch.zeros(1, P, dtype=torch.long), torch.zeros(1, K * G).long()
    rollouts = rollouts_of(prompts, generated, plan, 1, 1.0)
    tree = grow(rollouts, steps=G)
    # Where their token p is in our tree: the prompt first, then token t of block k.
    step_major = tree.rollout_at[:, 0].T.flatten()
    place = torch.cat([torch.arange(P), step_major])
    allowed = torch.tensor([[int(bit) for bit in row] for row in case["allowed_rows"][0]])
    ours = tree.mask.dense[0, 0][place][:, place]
    assert torch.equal(ours, allowed.bool())
    assert tree.positions[0, place].tolist() == case["position_ids"][0]


def test_similarities_are_named_for_what_they_are():
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(cosine(3 * x, x), cosine(x, x))
    torch.testing.assert_close(linear(3 * x, x), 3 * linear(x, x))


@pytest.mark.parametrize("normalize", [False, True])
def test_stacked_layers_are_whitened_apart(normalize):
    """`full7` has two blocks before the last dimension: here they are two layers side by side."""
    data, layers = tensors("whitening"), 2
    out = f"full7.norm{int(normalize)}"

    def stacked(values):
        """[P, n, L·D] with 1/√L over all, as `combine: stack` has it."""
        return contexts_of(values.flatten(-2)) / layers**0.5

    features = Features(
        stacked(data["full7.in_gen"]), stacked(data["full7.in_gt"])[:, :1],
        layers=layers, stacked=True,
    )  # fmt: skip
    ours = WhitenContextAuthors(normalize=normalize)(features)
    torch.testing.assert_close(ours.samples, stacked(data[f"{out}.out_gen"]), **CLOSE)
    torch.testing.assert_close(ours.references, stacked(data[f"{out}.out_gt"]), **CLOSE)
    side_by_side = WhitenContextAuthors(normalize=normalize)(replace(features, stacked=False))
    assert not torch.allclose(side_by_side.samples, ours.samples, atol=1e-2)

    terms = FeatureMatching(alignment_similarity="cosine")(None, ours)
    theirs = [
        [contexts_of(data[f"{out}.out_{which}"][..., layer, :]) for which in ("gen", "gt")]
        for layer in range(layers)
    ]
    cosines = torch.stack([torch.cosine_similarity(x, y, dim=-1) for x, y in theirs])
    torch.testing.assert_close(terms.unary, 2 * cosines.mean(0), **CLOSE)
    dots = torch.stack([x @ x.mT for x, _ in theirs])
    others = 1 - torch.eye(dots.shape[-1])
    torch.testing.assert_close(terms.pairwise, -2 * dots.mean(0) * others, **CLOSE)
