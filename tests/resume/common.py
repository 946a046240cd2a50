"""What the tests of checkpoints share."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from ebft.checkpoints.nested import read_nested

STATEFUL = [
    "transforms=[{_component_: whiten_running, refresh_every: 3}]",
    "baseline=moving_average",
    "training.steps=10",
    "checkpoint.every=4",
    "checkpoint.keep=9",
    "evaluation.every=5",
]
AHEAD = [
    f"plugins=[{Path(__file__).parents[1] / 'own_copy.py'}]",
    "sampler={_component_: own_copy, n: 4}",
    "training.sample_ahead=1",
    "objective.importance.level=sequence",
]
"""Rollouts are sampled a step ahead."""
TIMES = {"tokens_per_second", "seconds", "memory_gib", "sampling_wait_seconds"}
"""Metrics that no two runs have in common."""


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def assert_same_checkpoints(a: Path, b: Path) -> None:
    """Weights, optimizer, schedule, parts, random state, metrics, evaluations: every bit."""
    assert not (found := differences(a, b)), found


def differences(a: Path, b: Path) -> list[str]:
    """The tensors and states in which two checkpoints differ, by a single bit even."""
    found = []
    for name in ("model.safetensors", "run/state.safetensors"):
        one, two = load_file(a / name), load_file(b / name)
        found += sorted(one.keys() ^ two.keys())
        found += [key for key in one.keys() & two.keys() if not torch.equal(one[key], two[key])]
    one, two = (read_nested(folder / "run" / "state") for folder in (a, b))
    for state in (one, two):
        state["metrics"] = [
            {key: value for key, value in step.items() if key not in TIMES}
            for step in state["metrics"]
        ]
    states = ("optimizer", "lr_scheduler", "parts", "metrics", "history")
    return found + [key for key in states if repr(one[key]) != repr(two[key])]


def logged_steps(run: Path) -> list[int]:
    """The steps in metrics.jsonl, in its order."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "grad_norm" in line]
