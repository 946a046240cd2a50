"""Dividing a step's documents, and what several processes are refused."""

import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebft.config.load import load_recipe
from ebft.distributed.parallel import shares
from ebft.distributed.processes import Launch
from ebft.distributed.watchdog import place
from ebft.errors import UserError
from ebft.runs.checks import process_problems


@given(
    st.integers(1, 5).flatmap(
        lambda parts: st.tuples(
            st.just(parts),
            st.integers(1, 6).flatmap(
                lambda each: st.lists(
                    st.integers(1, 100), min_size=parts * each, max_size=parts * each
                )
            ),
        )
    )
)
def test_shares_are_equal_in_number_and_nearly_in_length(case):
    parts, lengths = case
    dealt = shares(lengths, parts)
    assert sorted(i for part in dealt for i in part) == list(range(len(lengths)))
    assert {len(part) for part in dealt} == {len(lengths) // parts}
    assert all(part == sorted(part) for part in dealt)
    totals = [sum(lengths[i] for i in part) for part in dealt]
    assert max(totals) - min(totals) <= max(lengths) - min(lengths)


REFUSED = [
    ("training.documents_per_step=5", "= 5: cannot be divided over 2 processes; set 4 or 6"),
    ("training.documents_per_step=1", "= 1: cannot be divided over 2 processes; set 2"),
    ("parallel.replicas=3", "parallel.replicas = 3: 2 processes cannot be divided"),
    ("model.device=cuda:0", "model.device = cuda:0: 2 processes cannot share it"),
]


@pytest.mark.parametrize(("override", "says"), REFUSED)
def test_what_two_processes_cannot_do(tiny_run, override, says):
    _, file, *overrides = tiny_run(override, "training.micro_batch=1")
    options = load_recipe(Path(file), overrides).options
    sections = options.parts(), options.training, options.model
    replicas = options.parallel.replicas
    (problem,) = process_problems(2, *sections, replicas=replicas)
    assert says in problem
    assert not list(process_problems(1, *sections, replicas=replicas))


def test_several_processes_are_torchruns(monkeypatch):
    assert Launch.of_environment().size == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="tune run --nproc_per_node"):
        Launch.of_environment()


def test_a_place_is_outside_of_libraries():
    started, done = threading.Event(), threading.Event()

    def waits():
        started.set()
        done.wait()

    thread = threading.Thread(target=waits)
    thread.start()
    started.wait()
    said = place(sys._current_frames()[thread.ident])
    done.set()
    thread.join()
    assert said.startswith("in waits, ")
    assert "test_processes.py:" in said
