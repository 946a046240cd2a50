"""A recipe's optimizer and schedule are tried for the steps that the run has, and no more."""

import re

import pytest

from ebft.config.load import load_recipe
from ebft.runs.trial import MOST_STEPS, optimizer_problems, schedule_problems
from tests.conftest import RECIPES

CYCLE = "torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.1, total_steps: {}"


def tried(options) -> list[str]:
    optimizer, steps = options.optimizer, options.training.steps
    return [
        *optimizer_problems(optimizer, options.model.device),
        *schedule_problems(options.lr_scheduler, optimizer, steps),
    ]


@pytest.fixture(scope="module")
def options():
    return load_recipe(RECIPES / "ebft_full.yaml").options


@pytest.fixture
def problems(options):
    def find(steps: int, **components: str) -> list[str]:
        overrides = [f"{key}={{_component_: {it}}}" for key, it in components.items()]
        # Without the checks, whose message would end it.
        found = load_recipe(RECIPES / "ebft_full.yaml", overrides).options
        training = found.training.model_copy(update={"steps": steps})
        return tried(found.model_copy(update={"training": training}))

    return find


@pytest.mark.parametrize("steps", [MOST_STEPS, MOST_STEPS + 1, 10**6])
def test_the_last_step_is_tried(problems, steps):
    """A schedule for as many steps as the run has is right, and for one less is not."""
    assert problems(steps, lr_scheduler=CYCLE.format(steps)) == []
    (line,) = problems(steps, lr_scheduler=CYCLE.format(steps - 1))
    assert f"Tried to step {steps} times" in line


@pytest.mark.parametrize(
    "optimizer",
    [
        "torch.optim.SGD, lr: 0.1, momentum: 0.9", "torch.optim.Rprop", "torch.optim.Adafactor",
        "torch.optim.AdamW, fused: true", "torch.optim.Muon",
        "transformers.Adafactor, lr: 0.1, relative_step: false",
    ],
)  # fmt: skip
def test_what_can_do_a_step_passes(problems, optimizer):
    assert problems(30, optimizer=optimizer) == []


def test_weights_on_another_device_are_no_mistake(problems, options, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert problems(30, optimizer="torch.optim.AdamW, capturable: true") == []
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    capturable = options.optimizer.__class__("torch.optim.AdamW", {"capturable": True})
    found = options.model_copy(update={"optimizer": capturable})
    (line,) = tried(found)
    error = "(Assertion|Accelerator|Runtime)Error"  # the last two by a build for GPUs
    assert re.match(rf"optimizer: torch.optim.AdamW\(capturable=True\): {error}: ", line)
    elsewhere = found.model.model_copy(update={"device": "cuda"})
    assert not tried(found.model_copy(update={"model": elsewhere}))
