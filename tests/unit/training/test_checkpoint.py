"""A checkpoint is there whole, or it is not there."""

import resource

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ebft.errors import StorageError
from ebft.training.checkpoint import Checkpoints
from tests.tiny import plain_policy, tiny_tokenizer


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def names(checkpoints):
    return [path.name for path in checkpoints.saved()]


def test_from_pretrained_loads_what_was_saved(checkpoints):
    policy, tokenizer = plain_policy(), tiny_tokenizer()
    path = checkpoints.save(policy, tokenizer, step=3)
    loaded = AutoModelForCausalLM.from_pretrained(path)
    for name, value in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert AutoTokenizer.from_pretrained(path)("a b").input_ids == tokenizer("a b").input_ids


def test_only_the_newest_are_kept(checkpoints):
    for step in (1, 2, 10):
        checkpoints.save(plain_policy(), tiny_tokenizer(), step=step)
    assert names(checkpoints) == ["step-000002", "step-000010"]


def test_a_full_disk_leaves_the_checkpoint_before_it_whole(checkpoints, tmp_path):
    """The limit on file sizes makes the real write fail, as a full disk does."""
    policy = plain_policy()
    kept = checkpoints.save(policy, tiny_tokenizer(), step=1)
    with torch.no_grad():
        policy.model.norm.weight += 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"checkpoint of step 2 .*step-000001"):
            checkpoints.save(policy, tiny_tokenizer(), step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(checkpoints) == ["step-000001"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
    weight = AutoModelForCausalLM.from_pretrained(kept).model.norm.weight
    assert not torch.equal(weight, policy.model.norm.weight)


def test_what_a_killed_process_left_half_written_is_not_a_checkpoint(checkpoints, tmp_path):
    half = tmp_path / "checkpoints" / "step-000005.partial"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert names(checkpoints) == []
    checkpoints.save(plain_policy(), tiny_tokenizer(), step=5)
    assert names(checkpoints) == ["step-000005"]
    assert not half.exists()
