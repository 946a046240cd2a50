"""Property 9, whole steps: features, rewards, advantages, log-probs, losses and gradients.

Every configuration starts from the compatibility recipe and says what differs.
"""

from dataclasses import replace

import pytest
import torch

from ebft.config.load import load_recipe
from ebft.models.log_probs import token_log_probs
from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.strided import Strided
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Document, Rollouts, Terms
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import cross_entropy_loss, policy_gradient_loss
from tests.conftest import RECIPES
from tests.golden.authors import (
    by_rollout,
    by_row,
    cases,
    resources,
    rollouts_of,
    tensors,
    tiny_model,
)
from tests.tiny import trained_on

CASES = {case["case"]: case for case in cases("end_to_end")}
METHOD = {
    "concat": [],
    "last_only": ["feature_map.depths=[1.0]"],
    "layer_5": ["feature_map.depths=[0.625]"],
    # Theirs: with `stack`, alignment is a mean over layers and diversity a sum.
    "stack": ["feature_map.combine=stack", "reward.diversity=3.0"],
}
POOLING = {"last_token": "last", "mean_pooling": "mean", "concat": "all"}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
GRADIENTS = {
    "grad_embed": "model.embed_tokens.weight",
    "grad_l0_q": "model.layers.0.self_attn.q_proj.weight",
    "grad_l7_down": "model.layers.7.mlp.down_proj.weight",
}


class Case:
    """One configuration: our recipe for it, its rollouts, and their numbers."""

    def __init__(self, name: str) -> None:
        self.meta = meta = CASES[name]
        assert meta["micro_batch"] * 2 == meta["prompts"] * meta["n_samples"]
        overrides = [
            f"plan.start={meta['context_length']}",
            f"plan.stride={meta['stride']}",
            f"plan.rollout_length={meta['generate_max_len']}",
            f"sampler.n={meta['n_samples']}",
            f"sampler.temperature={meta['temperature']}",
            f"feature_map.pooling={POOLING[meta['embed_method']]}",
            f"objective.gamma={meta['ce_coef_used_in_grads']}",
            *METHOD[meta["hidden_state_method"]],
            *([] if meta["use_whitening"] else ["transforms=[]"]),
            *(["baseline=none"] if meta["advantage_estimator"] == "reinforce" else []),
        ]
        self.options = load_recipe(RECIPES / "compat" / "authors.yaml", overrides).options
        data, source = tensors("end_to_end"), meta["inputs_from"]
        self.prompts, self.generated = data[f"{source}.prompts"], data[f"{source}.gen_tokens"]
        self.qa, self.doc_ids = data[f"{source}.qa_masks"].bool(), data[f"{source}.doc_ids"]
        self.theirs = {k.split(".")[1]: v for k, v in data.items() if k.startswith(f"{name}.")}
        self.n, self.G = meta["n_samples"], meta["generate_max_len"]
        self.policy, self.base = tiny_model("tiny_policy"), tiny_model("tiny_feature")
        self.rollouts = rollouts_of(
            self.prompts, self.generated, self.options.plan, self.n, meta["temperature"]
        )

    def terms(self, rollouts):
        made = resources(self.policy, self.base)
        features = self.options.feature_map.build(made)(rollouts)
        for transform in self.options.transforms:
            features = transform.build(made)(features)
        return self.options.reward.build(made)(rollouts, features)

    def tokens(self, key):
        """Their values of the generated tokens `[16, …]` as `[P, n, G]`."""
        count = self.generated.shape[1]
        return by_rollout(self.theirs[key][:, -count:], len(self.prompts), self.n, self.G)


def assert_terms(case, terms):
    B = len(case.prompts)
    diversity = -terms.pairwise.sum(-1) / (case.n - 1)
    torch.testing.assert_close(by_row(terms.unary, B), case.theirs["gt_rewards"], **CLOSE)
    torch.testing.assert_close(by_row(diversity, B), case.theirs["diversity_rewards"], **CLOSE)
    torch.testing.assert_close(by_row(terms.reward(), B), case.theirs["rewards"], **CLOSE)


def assert_gradients(case):
    parameters = dict(case.policy.named_parameters())
    for key, name in GRADIENTS.items():
        torch.testing.assert_close(
            parameters[name].grad, case.theirs[key], atol=1e-5, rtol=1e-4, msg=key
        )
    norm = torch.cat([p.grad.flatten() for p in parameters.values()]).norm()
    torch.testing.assert_close(norm[None], case.theirs["grad_norm"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"docmask", "qamask"}))
def test_a_whole_step(name):
    case = Case(name)
    terms = case.terms(case.rollouts)
    assert_terms(case, terms)
    advantages = case.options.baseline.build(None)(terms)
    theirs = case.tokens("advantages")
    torch.testing.assert_close(advantages[..., None].expand_as(theirs), theirs, **CLOSE)

    log_probs = tree_log_probs(case.policy, case.rollouts)
    torch.testing.assert_close(
        log_probs.rollouts.detach(), case.tokens("log_probs"), atol=1e-4, rtol=1e-5
    )
    S = case.prompts.shape[1]
    documents = log_probs.documents[:, 1:].detach().repeat_interleave(case.n, 0)
    torch.testing.assert_close(
        documents, case.theirs["log_probs"][:, : S - 1], atol=1e-4, rtol=1e-5
    )

    losses = accumulate_gradients(
        case.policy, *trained_on(case.rollouts, advantages, micro_batch=2), case.options.objective,
        precision=torch.float32, gradient_checkpointing=False, step=0,
    )  # fmt: skip
    assert losses.cross_entropy == pytest.approx(float(case.theirs["ce_loss"].mean()), abs=1e-5)
    # Theirs is the value of a ratio that is 1, ours of a log-prob: the gradients are the same.
    assert -float(advantages.mean()) == pytest.approx(
        float(case.theirs["rl_loss"].mean()), abs=1e-5
    )
    assert_gradients(case)


def test_the_value_of_stack_s_diversity():
    """Ours, without the factor: both terms are means over layers, and so of one scale."""
    case = Case("stack")
    part = FeatureMatching(alignment_similarity="cosine")
    features = case.options.feature_map.build(resources(None, case.base))(case.rollouts)
    diversity = -part(case.rollouts, features).pairwise.sum(-1) / (case.n - 1)
    theirs = case.theirs["diversity_rewards"]
    torch.testing.assert_close(3 * by_row(diversity, len(case.prompts)), theirs, **CLOSE)


def test_answers_only():
    """`qamask`: tokens of questions count in no feature and in neither loss."""
    case = Case("qamask")
    contexts = case.rollouts.contexts
    within = contexts.anchor[:, None] + torch.arange(case.G)
    answer = case.qa[contexts.row[:, None], within]
    # Theirs: a block that has no answer token has features of zero; a plan of ours has none such.
    empty = ~answer.any(1)
    answer[empty] = True
    masked = replace(
        case.rollouts,
        contexts=replace(contexts, reference_mask=answer),
        mask=answer[:, None].expand_as(case.rollouts.mask),
    )
    terms = case.terms(masked)
    kept = (~empty).float()
    terms = Terms(terms.unary * kept[:, None], terms.pairwise * kept[:, None, None])
    assert_terms(case, terms)
    advantages = case.options.baseline.build(None)(terms)

    # Theirs: each answer token weighs the same in its row. Ours: each rollout does.
    B, K = len(case.prompts), len(contexts) // len(case.prompts)
    count = answer.sum(1) * ~empty
    weight = (K * count / count.view(B, K).sum(1).repeat_interleave(K))[:, None]
    log_probs = tree_log_probs(case.policy, masked)
    policy_gradient = policy_gradient_loss(
        log_probs.rollouts, masked.mask, weight * advantages,
        contexts=len(contexts), reduction="token_mean",
    )  # fmt: skip
    # Theirs: the mean of each document's mean. Ours: one mean over all tokens.
    predicted = case.qa.clone()
    predicted[:, 0] = False
    ce = sum(
        cross_entropy_loss(log_probs.documents[[b]], predicted[[b]], tokens=int(predicted[b].sum()))
        for b in range(B)
    ) / B  # fmt: skip
    assert ce.item() == pytest.approx(float(case.theirs["ce_loss"].mean()), abs=1e-5)
    (policy_gradient + 0.1 * ce).backward()
    assert_gradients(case)


def test_packed_documents():
    """`docmask`: several documents in a row, none of which sees another.

    Ours are rows of their own, with anchors that have a context and a whole reference in their
    document. Theirs also has blocks that cross a border, whose reference belongs to the next
    document, and blocks that begin with one, whose first token is predicted from the document
    before. Where both have a block they agree.
    """
    case = Case("docmask")
    G, plan = case.G, case.options.plan
    their_anchors = list(range(plan.start, case.prompts.shape[1] - G + 1, plan.stride))
    documents, blocks = [], []
    for b, ids in enumerate(case.doc_ids):
        for number in ids.unique().tolist():
            place = (ids == number).nonzero()[:, 0]
            first, last = int(place[0]), int(place[-1]) + 1
            inside = [
                (k, anchor - first)
                for k, anchor in enumerate(their_anchors)
                if first < anchor and anchor + G <= last
            ]
            if inside:
                documents.append(Document(f"{b}.{number}", case.prompts[b, first:last]))
                blocks.append((b, inside))
    crossing = len(case.prompts) * len(their_anchors) - sum(len(inside) for _, inside in blocks)
    assert crossing > 0

    generated = by_rollout(case.generated, len(case.prompts), case.n, G)
    compared = 0
    for document, (b, inside) in zip(documents, blocks, strict=True):
        for k, anchor in inside:
            contexts = Strided(start=anchor, stride=10**6, rollout_length=G)([document])
            tokens = generated[[b * len(their_anchors) + k]]
            rollouts = Rollouts(
                contexts, tokens, torch.zeros(tokens.shape), torch.ones(tokens.shape).bool(), 1.0
            )
            terms = case.terms(rollouts)
            rows = slice(b * case.n, (b + 1) * case.n)
            theirs = case.theirs["rewards"][rows, k]
            torch.testing.assert_close(terms.reward()[0], theirs, **CLOSE)
            log_probs = tree_log_probs(case.policy, rollouts).rollouts[0].detach()
            expected = case.tokens("log_probs")[b * len(their_anchors) + k]
            torch.testing.assert_close(log_probs, expected, atol=1e-4, rtol=1e-5)
            compared += 1
    assert compared >= 8


def test_temperature_divides_the_logits_of_rollouts_only():
    """`T06`: the log-probs of generated tokens at 0.6, those of documents at 1."""
    case = Case("T06")
    hidden = torch.randn(5, 32)
    targets = torch.arange(5)
    cool = token_log_probs(case.policy, hidden, targets, 0.6)
    logits = hidden @ case.policy.model.embed_tokens.weight.mT
    expected = (logits / 0.6).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(cool, expected)
    assert case.rollouts.temperature == 0.6
