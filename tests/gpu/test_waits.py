"""How often the host waits for a GPU, and how many kernels it launches: counted without one."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config

from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.distributed.processes import ONE_PROCESS
from ebft.features.hidden_states import HiddenStates
from ebft.models.attention import DENSE, TREE
from ebft.models.flex import block_mask
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.tree import plant
from ebft.samplers.hf_tree import LOOKS_EVERY, HfTree
from ebft.testing import tiny_documents
from ebft.training.gradients import measure_gradients
from ebft.training.loop import accumulate_gradients, sample_and_score
from ebft.training.objective import ObjectiveOptions
from ebft.training.parts import RolloutParts
from ebft.verifiers.attempts import attempts_of
from tests.gpu.pretend import DEVICE, pretending, put
from tests.tiny import at_a_time, tiny_resources, tiny_tokenizer, trained_on

LAYERS, N = 3, 3
SHAPE = {
    "vocab_size": 24, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
MODELS = {"qwen2": Qwen2Config(**SHAPE), "mistral": MistralConfig(**SHAPE, sliding_window=24)}
OBJECTIVE = ObjectiveOptions(gamma=1.0)


def model_of(name="qwen2", attention=TREE):
    torch.manual_seed(0)
    config = MODELS[name]
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def resources_of(model):
    return replace(tiny_resources(model, base=model), device=model.device)


def contexts_of(plan, lengths, *, at_once=100, prompt=0):
    documents = tiny_documents(lengths, vocabulary=24, prompt_length=prompt)
    return at_a_time(at_once, plan(documents)).to(DEVICE)


def strided(G=4, stride=4):
    return Strided(start=3, stride=stride, rollout_length=G)


@pytest.fixture
def counts():
    with pretending() as counts:
        yield counts


def sampled(counts, plan, lengths=(60, 44), *, name="qwen2", attention=TREE, **how):
    """The waits and the kernels of sampling, and the rollouts."""
    sampler = HfTree(n=N).build(resources_of(put(model_of(name, attention))))
    contexts = contexts_of(plan, lengths, **how)
    counts.clear()
    rollouts = sampler(contexts, step=0)
    return counts.waited, counts.launched, rollouts


@pytest.mark.parametrize("attention", [TREE, DENSE])
@pytest.mark.parametrize("name", MODELS)
def test_decoding_waits_for_no_token(counts, name, attention):
    short, *_ = sampled(counts, strided(G=4), name=name, attention=attention)
    long, *_ = sampled(counts, strided(G=12), name=name, attention=attention)
    assert long == short <= 2


def test_sampling_waits_once_for_each_micro_batch(counts):
    waited, *_ = sampled(counts, strided(), [40, 30, 24, 20], at_once=1)
    assert waited <= 1 + 4


def test_whether_all_rollouts_have_ended_is_seldom_asked(counts):
    few, *_ = sampled(counts, Completion(rollout_length=2), prompt=20)
    many, *_ = sampled(counts, Completion(rollout_length=2 + 3 * LOOKS_EVERY), prompt=20)
    assert many - few <= 3


def test_a_decoding_step_launches_as_few_kernels_for_many_branches(counts):
    """Groups of branches are launched one after another in every layer."""

    def of_a_step(stride):
        launched = [sampled(counts, strided(G, stride), [300])[1] for G in (5, 6)]
        return launched[1] - launched[0]

    few, many = of_a_step(stride=100), of_a_step(stride=3)  # 9 and 297 branches
    assert many == few
    assert few <= 100 * LAYERS


def test_a_decoding_step_launches_as_few_kernels_for_many_documents(counts):
    """Their trunks are padded to one length."""

    def of_a_step(documents):
        plans = [Completion(rollout_length=G) for G in (5, 6)]
        launched = [sampled(counts, plan, [40] * documents, prompt=30)[1] for plan in plans]
        return launched[1] - launched[0]

    assert of_a_step(documents=2) == of_a_step(documents=12)


def test_what_is_sampled_there_is_what_is_sampled_on_the_cpu(counts):
    for plan, prompt in ((strided(G=7), 0), (Completion(rollout_length=20), 20)):
        *_, rollouts = sampled(counts, plan, prompt=prompt)
        documents = tiny_documents([60, 44], vocabulary=24, prompt_length=prompt)
        ours = HfTree(n=N).build(tiny_resources(model_of()))(plan(documents), step=0)
        there = rollouts.to(torch.device("cpu"))
        assert torch.equal(there.tokens, ours.tokens)
        assert torch.equal(there.mask, ours.mask)
        torch.testing.assert_close(there.log_probs, ours.log_probs, atol=1e-5, rtol=0)


def gradients_of(counts, lengths, *, at_once, model=None, gradient_checkpointing=False):
    """The waits of training on random rollouts, in micro-batches of `at_once` documents."""
    model = put(model_of()) if model is None else model
    *_, rollouts = sampled(counts, strided(), lengths)
    advantages = torch.randn(len(rollouts.contexts), N, device=DEVICE)
    contexts, scored = trained_on(rollouts, advantages, micro_batch=at_once)
    counts.clear()
    accumulate_gradients(
        model, contexts, scored, OBJECTIVE, precision=torch.float32,
        gradient_checkpointing=gradient_checkpointing, step=0,
    )  # fmt: skip
    return counts.waited


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_a_micro_batch_waits_five_times(counts, gradient_checkpointing):
    """For the longest rollout, the tree's sizes, the tokens with prefixes of their own in it and of
    those predicted, and whether log-probs are finite."""
    lengths = [40, 36, 30, 24]
    how = {"gradient_checkpointing": gradient_checkpointing}
    one, four = (gradients_of(counts, lengths, at_once=size, **how) for size in (4, 1))
    assert four - one == 3 * 5
    assert one <= 5 + 4


def test_features_wait_three_times_for_a_micro_batch(counts):
    feature_map = HiddenStates().build(resources_of(put(model_of())))
    *_, rollouts = sampled(counts, strided(), [40, 30, 24], at_once=1)
    counts.clear()
    feature_map(rollouts)
    assert counts.waited <= 1 + 3 * 3


def test_scoring_waits_as_often_for_any_number_of_contexts(counts):
    model = put(model_of())
    resources = resources_of(model)
    parts = RolloutParts(
        HfTree(n=N).build(resources), HiddenStates().build(resources), [], FeatureMatching(),
        LeaveOneOut(),
    )  # fmt: skip
    waited = []
    for lengths in ([30, 24], [200, 180]):
        contexts = contexts_of(strided(), lengths)
        counts.clear()
        sample_and_score(parts, contexts, ONE_PROCESS, step=0)
        waited.append(counts.waited)
    assert waited[0] == waited[1] <= 16


def test_gradient_norms_wait_once_for_a_document_not_for_a_weight(counts):
    model = put(model_of())
    *_, rollouts = sampled(counts, strided(), [40, 36, 30])
    scored = trained_on(rollouts, torch.randn(len(rollouts.contexts), N, device=DEVICE))[1]
    counts.clear()
    measure_gradients(
        model, rollouts.contexts, scored, OBJECTIVE, precision=torch.float32,
        gradient_checkpointing=False,
    )  # fmt: skip
    weights = len(list(model.parameters()))
    assert counts.waited <= 2 * (3 * 5 + 4) < 3 * weights


def test_texts_for_a_verifier_are_copied_together(counts):
    waited = []
    for lengths in ([30, 24], [120, 90]):
        *_, rollouts = sampled(counts, strided(), lengths)
        counts.clear()
        attempts_of(rollouts, tiny_tokenizer())
        waited.append(counts.waited)
    assert waited[0] == waited[1] <= 9


def test_block_masks_of_decoding_steps_wait_for_nothing(counts):
    tree = plant(contexts_of(strided(), [200, 60]), n=N, steps=3)
    counts.clear()
    for step in range(3):
        block_mask(tree.mask.at(step))
    assert counts.waited == 0


def test_moving_contexts_waits_for_nothing(counts):
    plan = strided()
    counts.clear()
    plan(tiny_documents([40, 30])).to(DEVICE)
    assert counts.waited == 0


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).any()),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.bincount(x),
        lambda x: x.repeat_interleave(x),
        lambda x: torch.tensor([1, 2], device=x.device),
        lambda x: torch.ones(2).to(x.device),
        lambda x: x[torch.tensor([0, 2])],
    ],
)
def test_waits_are_counted(counts, work):
    x = torch.arange(4, device=DEVICE)
    counts.clear()
    work(x)
    assert counts.waited == 1, counts.waits
    assert "tests/gpu/test_waits.py" in next(iter(counts.waits))


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x + 1,
        lambda x: x[x.flip(0)],
        lambda x: x.repeat_interleave(x, output_size=6),
        lambda x: torch.ones(2).pin_memory().to(x.device, non_blocking=True),
        lambda x: torch.where(x > 0, x, 0).sum(),
    ],
)
def test_what_is_only_launched_is_no_wait(counts, work):
    x = torch.arange(4, device=DEVICE)
    counts.clear()
    work(x)
    assert counts.waited == 0, counts.waits
    assert counts.launched


def test_tensors_on_two_devices_are_refused(counts):
    x = torch.arange(4, device=DEVICE)
    with pytest.raises(AssertionError, match="on the CPU and on the device"):
        x + torch.arange(4)
