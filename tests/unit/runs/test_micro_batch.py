"""Micro-batches chosen from the memory there is."""

import logging
import math

import pytest
import torch

from ebft.config.load import load_recipe
from ebft.errors import UserError
from ebft.models.cost import DocumentTree
from ebft.rollout.records import Document
from ebft.runs.estimate import StepEstimate, memory_need, recipe_tree
from ebft.runs.memory import SHARE, MemoryBudget, container_room, free_memory, with_turns
from tests.conftest import RECIPES


def options(*overrides):
    return load_recipe(
        RECIPES / "ebft_full.yaml", ["training.documents_per_step=8", *overrides]
    ).options


def choose_micro_batch(options, free, *, processes=1, before=None):
    need = memory_need(options, processes=processes)
    budget = MemoryBudget(options.training, need, free, processes)
    return budget.choose_micro_batch(before=before)


def chosen(free, *overrides):
    return choose_micro_batch(options("training.micro_batch=auto", *overrides), free)


def estimate_memory(options, count, *, processes=1):
    return StepEstimate.of(options).memory(count, processes=processes)


def step_flops(options):
    return StepEstimate.of(options).flops()


@pytest.mark.parametrize(
    ("limit", "processes", "most"), [(3, 1, 3), (8, 1, 8), (64, 1, 8), (64, 2, 4), (3, 2, 3)]
)
def test_a_number_is_a_limit_and_a_process_has_no_more_documents_of_a_step(limit, processes, most):
    recipe = options(f"training.micro_batch={limit}")
    assert choose_micro_batch(recipe, 0, processes=processes) == most
    assert recipe.training.micro_batch == limit, "the recipe that is recorded"


def test_the_dry_run_is_for_the_documents_that_a_step_has():
    small, inherited = (
        load_recipe(RECIPES / "ebft_full.yaml", [
            "training.documents_per_step=2", f"training.micro_batch={limit}",
        ]).job.estimate()
        for limit in (2, 64)
    )  # fmt: skip
    assert "with 2 documents of 256 tokens at a time (training.micro_batch = 2)" in small
    said = "(training.micro_batch = 64, capped at the documents of a step)"
    assert inherited == small.replace("(training.micro_batch = 2)", said)


@pytest.mark.parametrize("count", [1, 5, 8])
def test_auto_is_the_most_documents_that_fit(count):
    needed = estimate_memory(options(), count).total
    assert chosen(int(needed / SHARE) + 1) == count
    assert chosen(10 * int(needed)) == 8, "never more than a step has"
    assert chosen(int(needed / SHARE) - 1) == max(count - 1, 1)


def test_logits_are_kept_where_they_fit():
    auto = options("training.micro_batch=2")
    needed = StepEstimate.of(auto).memory(2, keep_logits=True)
    without = estimate_memory(auto, 2)
    rows = 2 * (256 + 7 * 4 * 8 - 1)
    assert needed.logits - without.logits == 4 * 49152 * (rows - 512)

    def kept(free, *overrides):
        recipe = options("training.micro_batch=2", *overrides)
        return MemoryBudget(recipe.training, memory_need(recipe), free).keeps_logits(2)

    assert kept(int(needed.total / SHARE) + 1)
    assert not kept(int(needed.total / SHARE) - 1)
    assert kept(0, "training.keep_logits=true")
    assert not kept(10**15, "training.keep_logits=false")


def test_a_resumed_run_has_the_micro_batch_that_it_had_if_that_fits(caplog):
    auto = options("training.micro_batch=auto")
    free = int(estimate_memory(auto, 5).total / SHARE) + 1
    with caplog.at_level(logging.INFO, "ebft"):
        assert [choose_micro_batch(auto, free, before=n) for n in (1, 3, 5)] == [1, 3, 5]
    assert [record.getMessage() for record in caplog.records] == [
        f"training.micro_batch = auto: {n}, as before the run was stopped" for n in (1, 3, 5)
    ]
    assert choose_micro_batch(auto, free, before=6) == 5
    assert choose_micro_batch(options("training.micro_batch=2"), free, before=3) == 2


@pytest.mark.parametrize("less", [["training.gradient_checkpointing=true"], ["model.lora.rank=8"]])
def test_what_takes_less_memory_leaves_room_for_more(less):
    free = int(estimate_memory(options(), 2).total / SHARE) + 1
    assert chosen(free) == 2
    assert chosen(free, *less) > 2


def test_what_was_chosen_is_said(caplog):
    with caplog.at_level(logging.INFO, "ebft"):
        assert chosen(0) == 1
        assert chosen(2**40) == 8
    few, many = caplog.records
    assert few.levelno == logging.WARNING
    assert "of the 0.0 GiB that are free" in few.getMessage()
    assert many.levelno == logging.INFO
    assert "auto: 8, estimated to need" in many.getMessage()


def test_what_cannot_be_estimated_needs_a_number():
    with pytest.raises(UserError, match=r"micro_batch = auto: model.path = .*; give a number"):
        chosen(2**40, "model.path=no-such/model")


def test_processes_share_the_weights_and_the_documents():
    alone, shared = (estimate_memory(options(), 1, processes=n) for n in (1, 4))
    assert shared.optimizer == alone.optimizer / 4
    assert shared.update == alone.update / 4
    assert alone.weights / 4 < shared.weights < alone.weights
    assert shared.activations == alone.activations, "each has a micro-batch of its own"
    assert alone.frozen / 4 < shared.frozen < alone.frozen
    assert shared.loading == alone.loading / 4
    assert shared.evaluation > 0 == alone.evaluation, "all weights, in each"
    copies = estimate_memory(options("parallel.replicas=2"), 1, processes=4)
    assert copies.optimizer == alone.optimizer / 2
    assert estimate_memory(options("parallel.replicas=2"), 1) == alone
    auto = options("training.micro_batch=auto")
    assert choose_micro_batch(auto, 2**40, processes=4) == 2, "a quarter of a step's eight"


def test_a_feature_map_is_priced_by_what_it_runs_of_the_base_model():
    alone = "evaluation.evaluators=[]"
    deep = step_flops(options("feature_map=next_token_log_probs"))
    half = step_flops(options("feature_map.depths=[0.5]"))
    assert step_flops(options("feature_map=layer_concat")) == step_flops(options())
    assert half < step_flops(options()) < deep
    bag = options("feature_map=bag_of_tokens", alone)
    assert step_flops(bag) < half
    assert estimate_memory(bag, 1).frozen == 0
    assert estimate_memory(options("feature_map=bag_of_tokens"), 1).frozen == 0, "as ${feature_map}"
    assert estimate_memory(options(alone), 1).frozen > 0
    maps = ["feature_map=concat", "feature_map.maps=[{feature_map: {_component_: bag_of_tokens}}]"]
    assert estimate_memory(options(*maps, alone), 1).frozen == 0


def test_the_memory_that_is_free():
    cpu = torch.device("cpu")
    assert 2**24 < free_memory(cpu) < 2**50
    assert free_memory(cpu, local_size=4) < free_memory(cpu) / 3


@pytest.mark.parametrize(
    ("line", "folder", "files"),
    [
        ("0::/pod/job", "pod", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:cpu,memory:/pod/job",
            "memory/pod",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_a_container_s_limit_counts(tmp_path, line, folder, files):
    cgroup = tmp_path / "cgroup"
    cgroup.write_text(f"7:pids:/elsewhere\n{line}\n")
    assert container_room(cgroup, tmp_path) == math.inf
    limit, use, cached = files
    group = tmp_path / folder
    group.mkdir(parents=True)
    (group / limit).write_text("5000\n")
    (group / use).write_text("3000\n")
    (group / "memory.stat").write_text(f"anon 1200\n{cached} 800\n")
    assert container_room(cgroup, tmp_path) == 2800
    (group / limit).write_text("max\n")
    assert container_room(cgroup, tmp_path) == math.inf
    assert container_room(tmp_path / "no such file", tmp_path) == math.inf


def chat(*overrides):
    named = ["training.documents_per_step=8", "documents.length=200", "plan.rollout_length=16"]
    return load_recipe(
        RECIPES / "ebft_chat.yaml", ["data.path=chat.jsonl", "sampler.n=4", *named, *overrides]
    ).options


def talk(turns, each=10):
    """A conversation of turns of half as many tokens each, after as many of the user."""
    spans = tuple((at + each // 2, at + each) for at in range(0, turns * each, each))
    tokens = torch.zeros(turns * each, dtype=torch.long)
    return Document(f"{turns} turns", tokens, spans[0][0], turns=spans)


def budget_of(options, free=0):
    return MemoryBudget(options.training, memory_need(options), free)


@pytest.mark.parametrize("turns", [2, 3, 7, 50])
def test_each_turn_of_a_conversation_is_an_anchor_of_the_estimate(turns):
    options = chat()
    tree = recipe_tree(options, turns=turns)
    assert (tree.length, len(tree.anchors)) == (200, turns)
    assert len(set(tree.anchors)) == turns
    assert recipe_tree(options).anchors == [200 - 16]
    more = StepEstimate.of(options, tree).memory(1).total
    assert more > StepEstimate.of(options).memory(1).total


def test_the_budget_of_a_run_is_that_of_its_largest_conversation(caplog):
    caplog.set_level(logging.INFO, "ebft")
    options = chat("training.micro_batch=auto")
    documents = [talk(2), talk(15), talk(4, each=45)]
    budget = with_turns(budget_of(options), options, documents)
    anchors = [start for start, _ in documents[1].turns]
    expected = StepEstimate.of(options, DocumentTree(150, anchors, 4, 16)).memory(3).total
    assert budget.need(3) == expected > memory_need(options)(3)
    assert "15 turns is a conversation of 15 turns, which needs more memory" in caplog.text
    free = int(expected / SHARE) + 1
    assert budget_of(options, free).choose_micro_batch() > 3
    assert with_turns(budget_of(options, free), options, documents).choose_micro_batch() == 3


def test_a_budget_that_suffices_stays():
    options = chat()
    for documents in ([talk(1)], [talk(2)], [Document("text", torch.zeros(200).long(), 9)]):
        assert with_turns(budget_of(options), options, documents) is None
    sft = ("sampler", "reward", "baseline", "feature_map")
    without = chat("evaluation.evaluators=[]", *(f"{part}=null" for part in sft))
    assert with_turns(budget_of(without), without, [talk(15)]) is None


def test_the_dry_run_says_what_more_turns_need():
    lines = StepEstimate.of(chat()).table(2).splitlines()
    at = lines.index("a conversation has an anchor for each turn:")
    tree = recipe_tree(chat(), turns=16)
    need = StepEstimate.of(chat(), tree).memory(2).total / 2**30
    assert lines[at + 2].split() == ["16", "turns", f"{need:.2f}"]
    assert "turns" not in StepEstimate.of(options()).table(2)
