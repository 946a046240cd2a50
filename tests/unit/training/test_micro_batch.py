"""Micro-batches chosen from the memory there is."""

import logging

import pytest
import torch

from ebft.config.load import load_recipe
from ebft.errors import UserError
from ebft.training.estimate import estimate_memory
from ebft.training.memory import SHARE, choose_micro_batch, free_memory
from tests.conftest import RECIPES


def options(*overrides):
    return load_recipe(
        RECIPES / "ebft_full.yaml", ["training.documents_per_step=8", *overrides]
    ).options


def chosen(free, *overrides):
    return choose_micro_batch(options("training.micro_batch=auto", *overrides), free)


def test_a_number_is_a_number():
    assert choose_micro_batch(options("training.micro_batch=3"), 0) == 3


@pytest.mark.parametrize("count", [1, 5, 8])
def test_auto_is_the_most_documents_that_fit(count):
    needed = estimate_memory(options(), count).total
    assert chosen(int(needed / SHARE) + 1) == count
    assert chosen(10 * int(needed)) == 8, "never more than a step has"
    assert chosen(int(needed / SHARE) - 1) == max(count - 1, 1)


@pytest.mark.parametrize("less", [["training.gradient_checkpointing=true"], ["model.lora.rank=8"]])
def test_what_takes_less_memory_leaves_room_for_more(less):
    free = int(estimate_memory(options(), 2).total / SHARE) + 1
    assert chosen(free) == 2
    assert chosen(free, *less) > 2


def test_what_was_chosen_is_said(caplog):
    with caplog.at_level(logging.INFO, "ebft"):
        assert chosen(0) == 1
        assert chosen(2**40) == 8
    few, many = caplog.records
    assert few.levelno == logging.WARNING
    assert "of the 0.0 GiB that are free" in few.getMessage()
    assert many.levelno == logging.INFO
    assert "auto: 8, estimated to need" in many.getMessage()


def test_what_cannot_be_estimated_needs_a_number():
    with pytest.raises(UserError, match=r"micro_batch = auto: model.path = .*; give a number"):
        chosen(2**40, "model.path=no-such/model")


def test_the_memory_that_is_free():
    assert 2**24 < free_memory(torch.device("cpu")) < 2**50
