"""How often weights are gathered in a step: what docs/scale.md assumes of FSDP."""

import subprocess
import sys

import pytest

LAYERS, G, DEEPEST = 4, 4, 3
"""Of the tiny model, of the tiny run's plan, and of the features' depths."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "keeps"), [("ebft_full", False), ("ebft_lora", False), ("ebft_full", True)]
)
def test_weights_are_gathered_for_each_forward(tiny_run, environment, recipe, keeps):
    _, *arguments = tiny_run(
        "training.micro_batch=1", "training.gradient_checkpointing=true",
        "evaluation.evaluators=[]", f"sampler.keep_weights={str(keeps).lower()}", recipe=recipe,
    )  # fmt: skip
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *command, "-m", "tests.distributed.gathers_worker", *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    micro_batches, *counts = map(int, done.stdout.split())
    assert micro_batches == 2
    # The weights outside the layers are a group of their own, which has no gradient with LoRA.
    reduced = LAYERS + (recipe == "ebft_full")
    # Kept weights are gathered once a step, those outside the layers twice.
    sampling = (2 + LAYERS) / micro_batches if keeps else 1 + G * LAYERS
    expected = (sampling, 0, 1 + DEEPEST, 0, 2 * (1 + LAYERS), reduced)
    assert [it / micro_batches for it in counts] == list(expected)
