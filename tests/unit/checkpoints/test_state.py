"""State of an optimizer that was damaged before it is restored."""

import pytest
import torch

from ebft.checkpoints.state import check_moments


def trained():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2)) for _ in range(2)])
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones(2)
    optimizer.step()
    return optimizer


def damaged(state, place, moments):
    state["state"].setdefault(place, {}).update(moments)
    return state


def test_an_optimizers_own_state_is_taken():
    optimizer = trained()
    optimizer.load_state_dict(optimizer.state_dict())
    check_moments(optimizer)


@pytest.mark.parametrize(
    ("place", "moments", "why"),
    [
        (1, {"exp_avg": "x"}, "exp_avg is a tensor for some parameters but not for all"),
        (7, {}, "there is state for parameter 7, which does not exist"),
    ],
)
def test_what_no_update_could_use_is_refused(place, moments, why):
    optimizer = trained()
    optimizer.load_state_dict(damaged(optimizer.state_dict(), place, moments))
    with pytest.raises(ValueError, match=why):
        check_moments(optimizer)
