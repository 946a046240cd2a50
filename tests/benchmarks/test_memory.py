"""The estimate before the first step, beside the peak, on the embedded model."""

import sys

import pytest

from ebft.config.load import load_recipe
from ebft.runs.estimate import StepEstimate
from tests.benchmarks.memory import RECIPE, measure, overrides

# The estimate is of what a run needs, and logits are kept only where there is more than that.
SMALL = ["training.documents_per_step=2", "training.steps=2", "training.keep_logits=false"]
OVER, UNDER = 0.3, 0.15
"""How much larger and smaller than the peak the estimate may be: larger, because it counts all
tokens of rollouts, of which those with the same prefix are computed once."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak off the kernel")
@pytest.mark.parametrize("kind", ["all weights", "LoRA, rank 16"])
def test_the_estimate_is_near_the_peak(kind):
    options = [*overrides(2, kind), *SMALL]
    estimate = StepEstimate.of(load_recipe(RECIPE, options).options).memory(2).total
    peak = measure(options)
    assert (1 - UNDER) * peak <= estimate <= (1 + OVER) * peak
