"""Out of memory: smaller micro-batches and the same results, or the numbers."""

from pathlib import Path

import pytest
import torch

from ebft.config.load import load_recipe
from ebft.errors import is_out_of_memory
from ebft.models import load
from ebft.runs import setup
from ebft.runs.estimate import StepEstimate
from ebft.runs.memory import SHARE
from ebft.training import losses
from tests.resume.common import assert_same_checkpoints, checkpoint


@pytest.fixture
def room_for(monkeypatch):
    """Lets the policy train on so many documents at a time and no more."""
    forward = losses.tree_log_probs_and_entropies

    def limit(documents, *, after=0):
        calls = []

        def limited(policy, rollouts, **how):
            calls.append(1)
            result = forward(policy, rollouts, **how)
            if len(calls) > after and len(rollouts.contexts.documents) > documents:
                torch.empty(1 << 60)
            return result

        monkeypatch.setattr(losses, "tree_log_probs_and_entropies", limited)

    return limit


def test_what_allocators_say():
    for allocate in (lambda: torch.empty(1 << 60), lambda: bytearray(1 << 60)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            allocate()
        assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_the_micro_batch_is_halved_and_results_are_the_same(ebft, tiny_run, tmp_path, room_for):
    options = ["transforms=[{_component_: whiten_running}]", "baseline=moving_average"]
    options += ["evaluation.evaluators=[]"]  # made before, with another rounding
    run, small = tmp_path / "run", tmp_path / "small"
    one = ["training.micro_batch=1", f"output_dir={small}"]
    assert ebft(*tiny_run(*options, *one))[0] == 0
    # The second micro-batch of the first step fails, when gradients of the first are there.
    room_for(1, after=1)
    status, _, err = ebft(*tiny_run(*options, "training.micro_batch=2"))
    assert status == 0, err
    assert err.count("out of memory: ") == 1
    assert "with training.micro_batch = 2, and " in err
    assert "continuing with 1, which changes no result" in err
    assert_same_checkpoints(checkpoint(run, 3), checkpoint(small, 3))


@pytest.mark.parametrize("schedule", [["lr_scheduler=null"], []], ids=["constant", "cosine"])
def test_a_resumed_run_is_halved_from_where_it_was(ebft, tiny_run, tmp_path, room_for, schedule):
    options = ["transforms=[{_component_: whiten_running}]", "baseline=moving_average"]
    small, run = tmp_path / "small", tmp_path / "run"
    # With more steps the cosine is another, and is taken anew to where the run resumes.
    more = ["training.steps=4", "checkpoint.resume=auto", *schedule]
    for folder in (small, run):
        start = [*options, "training.micro_batch=1", f"output_dir={folder}", *schedule]
        assert ebft(*tiny_run(*start))[0] == 0
    assert ebft(*tiny_run(*options, "training.micro_batch=1", f"output_dir={small}", *more))[0] == 0
    room_for(1)
    status, _, err = ebft(*tiny_run(*options, "training.micro_batch=4", *more))
    assert status == 0, err
    assert "continuing with 2" in err
    assert "continuing with 1" in err
    assert_same_checkpoints(checkpoint(run, 4), checkpoint(small, 4))


def test_a_resumed_run_chooses_no_other_micro_batch_for_the_memory_that_is_free(
    ebft, tiny_run, tmp_path, monkeypatch
):
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = ["training.micro_batch=auto", "lr_scheduler=null"]
    little = int(tiny_need(tiny_run, 2) / SHARE) + 1
    monkeypatch.setattr(setup, "free_memory", lambda device, local_size: little)
    assert ebft(*tiny_run(*options, f"output_dir={whole}"))[0] == 0
    assert ebft(*tiny_run(*options, "training.steps=2"))[0] == 0
    monkeypatch.setattr(setup, "free_memory", lambda device, local_size: 100 << 30)
    status, _, err = ebft(*tiny_run(*options, "checkpoint.resume=auto"))
    assert status == 0, err
    assert "training.micro_batch = auto: 2, as before the run was stopped" in err
    assert "but not bit for bit" not in err
    assert_same_checkpoints(checkpoint(run, 3), checkpoint(whole, 3))


def tiny_need(tiny_run, count):
    _, file, *overrides = tiny_run()
    return StepEstimate.of(load_recipe(Path(file), overrides).options).memory(count).total


def test_when_nothing_fits_the_numbers_are_given(ebft, tiny_run, room_for, monkeypatch):
    monkeypatch.setattr(setup, "free_memory", lambda device, local_size: 3 << 30)
    room_for(0)
    status, _, err = ebft(*tiny_run())
    assert status == 1
    last = err.rstrip().splitlines()[-1]
    assert last.startswith("error: out of memory: about 0.")
    assert "needed with training.micro_batch = 1, and 3.0 GiB were free when the run" in last
    assert err.count("were free when the run began") == 3  # at the start, halved, at the end
    assert "set training.gradient_checkpointing=true, or a smaller documents.length" in last
    assert "Traceback" not in err


def test_later_the_policy_is_saved(ebft, tiny_run, tmp_path, room_for):
    """A step of twice the size than the first cannot be foreseen."""
    room_for(1, after=4)  # two micro-batches of two steps
    status, _, err = ebft(*tiny_run("checkpoint.every=null", "evaluation.every=null"))
    assert status == 1
    assert f"the policy is intact; checkpoint: {checkpoint(tmp_path / 'run', 2)}" in err
    assert "set training.micro_batch=1, or training.gradient_checkpointing=true" in err


def test_models_that_do_not_fit(ebft, tiny_run, monkeypatch):
    monkeypatch.setattr(load, "_load", lambda *_, **__: torch.empty(1 << 60))
    status, _, err = ebft(*tiny_run())
    assert status == 1
    last = err.rstrip().splitlines()[-1]
    assert last.startswith("error: out of memory: about 0.")
    assert "with training.micro_batch = 1; set model.lora={rank: 16}, or a smaller doc" in last
    assert "Traceback" not in err


def test_what_it_says_to_set_can_be_set(ebft, tiny_run, monkeypatch):
    monkeypatch.setattr(load, "_load", lambda *_, **__: torch.empty(1 << 60))
    status, _, err = ebft(*tiny_run("model.lora={rank: 16}"))
    assert status == 1
    assert err.rstrip().endswith("; set a smaller documents.length or another model.path")
