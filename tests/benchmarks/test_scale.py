"""The simulation of large models: its arithmetic, and that the page has its tables."""

import math
from dataclasses import replace

import pytest

from ebft.models.cost import GIB
from ebft.runs.memory import MemoryBudget
from tests.benchmarks.cluster import GPUS, Cluster, Gpu, Layout, Step, largest_micro_batch
from tests.benchmarks.scale import (
    MIXTURE,
    MODELS,
    PAGE,
    SEVEN,
    arguments,
    estimate_of,
    filled,
    main,
    peaks,
    tables,
)

H100 = Cluster(GPUS["h100"])
PLAIN = replace(H100, reached=1.0, hop=0.0)


def test_the_page_has_these_tables():
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, tables(H100)) == page, "python -m tests.benchmarks.scale --write"


def test_it_prints_them_for_other_assumptions(capsys):
    main(["--gpu=h200", "--mfu=0.2", "--decode-mfu=0.2"])
    out = capsys.readouterr().out
    assert [name for name in tables(H100) if f"{name}\n\n| " not in out] == []
    assert tables(H100)["seconds"] not in out
    assert vars(arguments().parse_args([]))["nvlink"] == H100.nvlink


def test_an_all_gather_enters_each_gpu_and_each_machine_once():
    assert PLAIN.gather(45e9, ranks=1) == 0
    assert PLAIN.gather(80e9, ranks=8) == pytest.approx(70e9 / 450e9), "within a machine"
    slow = replace(PLAIN, network=5e9)
    assert slow.gather(80e9, ranks=64) == pytest.approx(70e9 / 40e9), "8 cards for 7 of 8 parts"
    assert PLAIN.gather(80e9, ranks=64) == pytest.approx(78.75e9 / 450e9), "NVLink is slower here"
    assert replace(PLAIN, reached=0.5).gather(80e9, ranks=8) == pytest.approx(140e9 / 450e9)
    assert replace(PLAIN, hop=1.0).gather(0, ranks=8, collectives=3) == 21


def test_an_all_reduce_goes_there_and_back():
    assert PLAIN.all_reduce(8e9, replicas=1) == 0
    assert PLAIN.all_reduce(8e9, replicas=8) == pytest.approx(14e9 / 50e9)


@pytest.mark.parametrize("lora", [False, True])
def test_without_any_other_cost_a_step_takes_its_products(lora):
    free = Cluster(Gpu("", math.inf, 1e15, math.inf), mfu=1, decode_mfu=1, launch=0)
    estimate = estimate_of(SEVEN, lora=lora)
    one = Step(estimate, free, Layout(1), micro_batch=4)
    assert one.seconds == pytest.approx(estimate.flops() / 1e15)
    assert sum(phase.received for phase in one.phases()) == 0
    without = replace(estimate, model=replace(estimate.model, layers=0))
    assert without.flops() < estimate.flops()
    assert 0.7 < one.mfu < 1, "recomputed layers do not count"


def test_what_a_gpu_receives_in_a_micro_batch():
    """Layers: for each of G tokens, 21 of 28 for features, twice for training; in bfloat16."""
    estimate = estimate_of(SEVEN, documents=8)
    model, share = estimate.model, 7 / 8
    layers = 2 * model.layers * model.layer_weights * share
    outside = 4 * 2 * model.head_weights * share
    prompts, tokens, features, training, update = Step(estimate, H100, Layout(8), 1).phases()
    assert prompts.received == pytest.approx(layers + outside)
    assert tokens.received == pytest.approx(7 * layers)
    assert features.received == pytest.approx(0.75 * layers + outside / 2)
    gradients = 4 * model.parameters * share
    assert training.received == pytest.approx(2 * (layers + outside) + gradients)
    assert update.received == 0
    kept = Step(estimate, H100, Layout(8), 1, kept=True).phases()
    assert [it.received for it in kept] == [prompts.received, 0, *(
        it.received for it in (features, training, update))]  # fmt: skip
    twice = Step(estimate_of(SEVEN, documents=16), H100, Layout(8), 1).phases()
    assert [it.received for it in twice] == [
        2 * it.received for it in (prompts, tokens, features, training, update)
    ]
    replicated = Step(estimate_of(SEVEN, documents=16, replicas=2), H100, Layout(16, 2), 1)
    across = 2 * 4 * model.parameters / 8 / 2
    assert replicated.phases()[3].received == pytest.approx(training.received + across)


def test_the_micro_batch_is_that_of_a_run():
    estimate = estimate_of(SEVEN)
    training = estimate.options.training.model_copy(update={"micro_batch": "auto"})

    def need(documents, *, keep_logits=None):
        return estimate.memory(documents, processes=8, keep_logits=keep_logits).total

    for size in (30 * GIB, 56 * GIB, 79 * GIB):
        gpu = Gpu("", size, 1, 1)
        chosen = MemoryBudget(training, need, size, 8).choose_micro_batch()
        assert max(1, largest_micro_batch(estimate, gpu, Layout(8))) == chosen
    assert largest_micro_batch(estimate, Gpu("", GIB, 1, 1), Layout(8)) == 0


def test_the_mixture_is_the_one_that_its_name_says():
    shape = MODELS[MIXTURE]
    assert shape.parameters == pytest.approx(30.5e9, rel=0.01)
    active = shape.layers * shape.active_weights + 2 * shape.head_weights
    assert active == pytest.approx(3.3e9, rel=0.02)
    found = estimate_of(MIXTURE).memory(1, processes=8)
    assert found.loading == 4 * shape.parameters, "whole, in each process"
    assert max(peaks(found), key=peaks(found).get) == "evaluation"
