import pytest
import torch
from pydantic import BaseModel, ValidationError

from ebft.config.component import Component
from ebft.errors import UserError


class Recipe(BaseModel):
    optimizer: Component


def component(**section):
    return Recipe(optimizer=section).optimizer


def test_it_is_called_with_the_recipe_s_arguments():
    parameter = torch.nn.Parameter(torch.zeros(2))
    made = component(_component_="torch.optim.SGD", lr=0.5, momentum=0.25).instantiate([parameter])
    assert isinstance(made, torch.optim.SGD)
    group = made.param_groups[0]
    assert (group["lr"], group["momentum"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"lr": 1}, "needs `_component_: dotted.path`"),
        ({"_component_": "torch.optim.AdamV"}, "did you mean 'Adam'?"),
        ({"_component_": "torch.nowhere.Adam"}, "cannot be imported"),
        ({"_component_": "torch.pi"}, "must be a class"),
        ({"_component_": "torch.optim.SGD", "lrr": 1}, "unknown key; did you mean 'lr'?"),
        ({"_component_": "torch.optim.AdamW", "weight_decay": True}, "should be a valid number"),
    ],
)
def test_mistakes_are_found_when_the_recipe_is_read(section, says):
    with pytest.raises(ValidationError) as error:
        component(**section)
    assert says in str(error.value)


def test_missing_and_refused_arguments_name_the_component():
    scheduler = component(_component_="torch.optim.lr_scheduler.StepLR", gamma=0.5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match=r"StepLR\(gamma=0.5\): missing a required argument"):
        scheduler.instantiate(optimizer)
    with pytest.raises(UserError, match=r"SGD\(lr=-1\): Invalid learning rate"):
        component(_component_="torch.optim.SGD", lr=-1).instantiate(optimizer.param_groups)


def test_arguments_are_bound_without_a_call():
    component(_component_="torch.storage.UntypedStorage", device="nowhere").bind()
    with pytest.raises(UserError, match=r"StepLR\(gamma=0.5\): missing a required argument"):
        component(_component_="torch.optim.lr_scheduler.StepLR", gamma=0.5).bind()


def test_what_is_missing_here_names_the_component():
    file = component(_component_="io.FileIO", file="/proc/no/log")
    with pytest.raises(UserError, match=r"io.FileIO\(.*No such file or directory: '/proc/no/log'"):
        file.instantiate()


def test_what_ebft_sets_cannot_be_set_twice():
    with pytest.raises(UserError, match="lr is set by ebft; take it out of the recipe"):
        component(_component_="torch.optim.SGD", lr=1).instantiate([], lr=2)
