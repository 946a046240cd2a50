"""Micro-batches chosen from the memory there is."""

import logging
import math

import pytest
import torch

from ebft.config.load import load_recipe
from ebft.errors import UserError
from ebft.runs.estimate import StepEstimate, memory_need
from ebft.runs.memory import SHARE, MemoryBudget, container_room, free_memory
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


def test_a_number_is_a_number():
    assert choose_micro_batch(options("training.micro_batch=3"), 0) == 3


@pytest.mark.parametrize("count", [1, 5, 8])
def test_auto_is_the_most_documents_that_fit(count):
    needed = estimate_memory(options(), count).total
    assert chosen(int(needed / SHARE) + 1) == count
    assert chosen(10 * int(needed)) == 8, "never more than a step has"
    assert chosen(int(needed / SHARE) - 1) == max(count - 1, 1)


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
    assert shared.frozen == alone.frozen
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
