"""The estimate before the first step is within 15 % of the peak, on the embedded model."""

import sys

import pytest

from ebft.config.load import load_recipe
from ebft.runs.estimate import StepEstimate
from tests.benchmarks.memory import RECIPE, measure, overrides

# The estimate is of what a run needs. Logits are kept only where there is more than that. And it
# counts all tokens: rollouts that are drawn almost uniformly have no prefix in common.
SMALL = [
    "training.documents_per_step=2", "training.steps=2", "training.keep_logits=false",
    "sampler.temperature=100",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak off the kernel")
@pytest.mark.parametrize("kind", ["all weights", "LoRA, rank 16"])
def test_the_estimate_is_near_the_peak(kind):
    options = [*overrides(2, kind), *SMALL]
    estimate = StepEstimate.of(load_recipe(RECIPE, options).options).memory(2).total
    assert estimate == pytest.approx(measure(options), rel=0.15)
