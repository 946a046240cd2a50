"""`generate` draws what the tree draws, whatever the model's own generation config says."""

import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, GPT2Config

from ebft.errors import NumericalError
from ebft.evaluation.rollouts import EvaluationRollouts
from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.samplers.hf_generate import HfGenerate
from ebft.samplers.hf_tree import HfTree
from ebft.training.checks import Contract
from tests.tiny import VOCAB, at_a_time, tiny_documents, tiny_policy, tiny_resources

POLICY = tiny_policy()
PLANS = {
    "strided": Strided(start=3, stride=4, rollout_length=5)(tiny_documents([19, 12, 16])),
    "completion": Completion(rollout_length=7)(tiny_documents([9, 14, 6], prompt_length=4)),
}


def sample(options, contexts, *, policy=POLICY, seed=0, step=0, eos=1):
    return options.build(tiny_resources(policy, seed=seed, eos=eos))(contexts, step=step)


@pytest.mark.parametrize("options", [HfTree(n=2), HfTree(n=1, top_k=1), HfGenerate(n=2)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("plan", PLANS)
def test_logits_that_are_not_finite_stop_the_step(plan, bad, options):
    policy, contexts = with_a_bad_logit(bad), PLANS[plan]
    rollouts = sample(options, contexts, policy=policy)
    with pytest.raises(NumericalError, match=r"step 3: .* in document doc0, doc1, doc2; the run"):
        Contract(contexts, n=options.n, step=2).rollouts(rollouts)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_stop_an_evaluation(bad):
    policy = with_a_bad_logit(bad)
    plan = Strided(start=3, stride=4, rollout_length=5)
    measured = EvaluationRollouts(plan, tiny_resources(policy, seed=0, eos=1), n=2)
    with pytest.raises(NumericalError, match=r"evaluation: .* in document doc0, doc1; look"):
        measured(policy, tiny_documents([19, 12]))


def with_a_bad_logit(bad):
    policy = tiny_policy()
    head = torch.nn.Linear(policy.config.hidden_size, VOCAB, dtype=torch.float64)
    head.bias.data[7] = bad
    policy.lm_head = head
    return policy


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_same_rollouts_as_the_tree(plan, temperature):
    contexts = PLANS[plan]
    for step in range(4):
        ours = sample(HfGenerate(n=3, temperature=temperature, batch=2), contexts, step=step)
        tree = sample(HfTree(n=3, temperature=temperature), contexts, step=step)
        assert torch.equal(ours.mask, tree.mask)
        assert torch.equal(ours.tokens, tree.tokens.where(tree.mask, 0))
        expected = tree.log_probs.where(tree.mask, 0)
        torch.testing.assert_close(ours.log_probs, expected, atol=1e-9, rtol=0)
        assert ours.temperature == temperature


@pytest.mark.parametrize("plan", PLANS)
def test_log_probs_are_those_of_the_trainer(plan):
    rollouts = sample(HfGenerate(n=4, temperature=0.6), PLANS[plan])
    with torch.no_grad():
        trained = tree_log_probs(POLICY, rollouts).rollouts.where(rollouts.mask, 0)
    torch.testing.assert_close(rollouts.log_probs, trained, atol=1e-9, rtol=0)


def test_nothing_depends_on_the_batch():
    contexts = PLANS["strided"]
    whole = sample(HfGenerate(batch=100), contexts)
    for batch in (1, 3):
        part = sample(HfGenerate(batch=batch), contexts)
        assert torch.equal(part.tokens, whole.tokens)
        torch.testing.assert_close(part.log_probs, whole.log_probs, atol=1e-9, rtol=0)


def test_a_rollout_ends_with_end_of_sequence_only_where_the_plan_says_so():
    common = int(sample(HfGenerate(n=8), PLANS["strided"]).tokens.flatten().mode().values)
    ended = sample(HfGenerate(n=8), PLANS["completion"], eos=common)
    assert not ended.mask.all()
    assert ended.mask.any(-1).all(), "the token that ends a rollout belongs to it"
    last = ended.mask.sum(-1) - 1
    short = last < 6
    assert (ended.tokens.gather(-1, last[..., None])[..., 0][short] == common).all()
    assert sample(HfGenerate(n=8), PLANS["strided"], eos=common).mask.all()


def test_a_batch_whose_rollouts_all_end_at_once_keeps_its_shape():
    contexts = PLANS["completion"]
    token = int(sample(HfGenerate(n=1), contexts).tokens[0, 0, 0])
    (_, first), *_ = at_a_time(1, contexts).split()
    rollouts = sample(HfGenerate(n=1), first, eos=token)
    assert rollouts.tokens.shape == (1, 1, 7)
    assert rollouts.mask.sum() == 1


def test_the_model_s_generation_config_changes_nothing():
    biased = tiny_policy()
    plain = sample(HfGenerate(n=4), PLANS["strided"])
    config = biased.generation_config
    config.do_sample, config.top_k, config.top_p, config.temperature = True, 2, 0.1, 0.2
    config.repetition_penalty, config.no_repeat_ngram_size = 5.0, 1
    config.eos_token_id, config.max_length, config.num_beams = list(range(VOCAB)), 3, 2
    config.bad_words_ids, config.suppress_tokens, config.min_new_tokens = [[3]], [4, 5], 9
    before = config.to_dict()
    rollouts = sample(HfGenerate(n=4), PLANS["strided"], policy=biased)
    assert torch.equal(rollouts.tokens, plain.tokens)
    torch.testing.assert_close(rollouts.log_probs, plain.log_probs, atol=1e-9, rtol=0)
    assert biased.generation_config.to_dict() == before
    assert not biased._forward_hooks, "the policy is left as it was"


def test_the_distribution_is_the_softmax_at_the_temperature():
    (_, contexts), *_ = at_a_time(1, PLANS["completion"]).split()
    rollouts = sample(HfGenerate(n=4000, temperature=1.5), contexts, eos=-1)
    with torch.no_grad():
        logits = POLICY(contexts.tokens[:, : int(contexts.anchor)]).logits[0, -1] / 1.5
    expected = 4000 * logits.softmax(-1)
    counts = torch.bincount(rollouts.tokens[0, :, 0], minlength=VOCAB)
    assert chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_an_architecture_with_learned_positions():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64,
        bos_token_id=None, eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    gpt2 = AutoModelForCausalLM.from_config(config).double().eval()
    rollouts = sample(HfGenerate(n=2), PLANS["strided"], policy=gpt2)
    contexts = rollouts.contexts
    for p in range(len(contexts)):
        prefix = contexts.tokens[contexts.row[p], : contexts.anchor[p]]
        for j in range(2):
            ids = torch.cat([prefix, rollouts.tokens[p, j]])[None]
            with torch.no_grad():
                log_probs = gpt2(ids).logits[0, len(prefix) - 1 : -1].log_softmax(-1)
            own = log_probs.gather(1, rollouts.tokens[p, j][:, None])[:, 0]
            torch.testing.assert_close(rollouts.log_probs[p, j], own, atol=1e-9, rtol=0)
