"""How much room checkpoints need, and what is said where there is too little."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from ebft.checkpoints.room import check_room, least_size
from ebft.checkpoints.snapshot import Snapshot
from ebft.config.about import About
from ebft.errors import UserError
from ebft.models.lora import add_adapter
from ebft.models.options import LoraOptions
from tests.tiny import plain_policy, tiny_tokenizer

GIB = 2**30


@pytest.fixture
def free(monkeypatch):
    def set_free(size, total=2**50):
        disk = SimpleNamespace(total=total, free=size)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)

    return set_free


@pytest.mark.parametrize("kind", ["whole", "adapter", "merged"])
def test_it_is_what_a_checkpoint_will_take(kind):
    policy = plain_policy()
    if kind != "whole":
        add_adapter(policy, LoraOptions(rank=2), seed=0)
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    merge = kind == "merged"
    before = least_size(policy, optimizer, merge_adapter=merge)
    for weight in trained:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    state = {"optimizer": optimizer.state_dict()}
    size = Snapshot(policy, tiny_tokenizer(), About(1, {}, {}), state, merge_adapter=merge).size
    assert size - before == 4 * len(trained)  # the optimizer counts its steps for each


def test_an_optimizer_whose_state_is_not_known_counts_for_nothing():
    policy = plain_policy()
    optimizer = torch.optim.SGD(policy.parameters())
    weights = sum(weight.numel() for weight in policy.parameters())
    assert least_size(policy, optimizer, merge_adapter=False) == 4 * weights


def test_without_room_for_one(tmp_path, free):
    free(3 * GIB)
    says = (
        r"output_dir = .*: a checkpoint takes 12.00 GiB or more, and 3.00 GiB are free there; make"
    )
    with pytest.raises(UserError, match=says):
        check_room(tmp_path, 12 * GIB, wanted=1, within=tmp_path)


def test_without_room_for_all(tmp_path, free, caplog):
    free(30 * GIB)
    check_room(tmp_path, 12 * GIB, wanted=2, within=tmp_path)
    assert not caplog.text
    check_room(tmp_path, 12 * GIB, wanted=3, within=tmp_path)
    assert (
        "3 more checkpoints of 12.00 GiB or more will be kept at a time, and 30.00 GiB are free"
        in caplog.text
    )


def test_what_will_be_deleted_counts_as_free(tmp_path, free):
    (tmp_path / "old" / "run").mkdir(parents=True)
    (tmp_path / "old" / "run" / "state").write_bytes(bytes(60))
    free(50)
    check_room(tmp_path, 100, wanted=1, within=tmp_path, freed=[tmp_path / "old"])


def test_a_file_system_that_does_not_say(tmp_path, free):
    free(0, total=0)
    check_room(tmp_path, 100, wanted=1, within=tmp_path)
