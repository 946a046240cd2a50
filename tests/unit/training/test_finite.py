import pytest
import torch

from ebft.errors import NumericalError
from ebft.plans.strided import Strided
from ebft.training.checks import check_finite
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
