import pytest
import torch

from ebft.errors import NumericalError
from ebft.plans.strided import Strided
from ebft.training.checks import check_finite, check_log_probs
from ebft.training.losses import LogProbs
from tests.tiny import tiny_documents

CONTEXTS = Strided(start=2, stride=3, rollout_length=2)(tiny_documents([8, 5, 11]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_names_the_step_and_the_document(bad):
    values = torch.zeros(len(CONTEXTS), 4)
    values[CONTEXTS.row == 1, 2] = bad
    with pytest.raises(NumericalError, match=r"step 8: rewards .* in document doc1;"):
        check_finite("rewards", values, CONTEXTS, step=7)


def test_finite_values_pass():
    check_finite("rewards", torch.zeros(len(CONTEXTS), 4), CONTEXTS, step=7)


@pytest.mark.parametrize("which", ["documents", "rollouts"])
def test_log_probs_of_either_kind_are_checked(which):
    shapes = {"documents": CONTEXTS.tokens.shape, "rollouts": (len(CONTEXTS), 3, 2)}
    values = {name: torch.zeros(shape) for name, shape in shapes.items()}
    values["entropies"] = torch.zeros(CONTEXTS.tokens.shape)
    check_log_probs(LogProbs(**values), CONTEXTS, step=0)
    values[which][-1, -1] = float("nan")
    with pytest.raises(NumericalError, match=f"log-probs of {which} .* in document doc2;"):
        check_log_probs(LogProbs(**values), CONTEXTS, step=0)
