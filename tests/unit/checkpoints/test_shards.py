"""Tensors that several processes have written: a damaged file is refused, whatever is in it."""

import json
import os
import struct
import warnings

import pytest
import torch

from ebft.checkpoints.shards import read_shards, write_shards

TENSORS = {"0.exp_avg": torch.arange(6.0).reshape(2, 3)}


def header(**metadata):
    """A safetensors file without tensors, whose header says this."""
    text = json.dumps({"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.fixture
def folder(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_shards(TENSORS, tmp_path / "shards")
    return tmp_path / "shards"


def test_they_come_back(folder):
    like = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    assert torch.equal(read_shards(folder, like)["0.exp_avg"], TENSORS["0.exp_avg"])


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 64, struct.pack("<Q", 2**40), header(), header(DCP_SHARDING_INFO="[")],
    ids=["empty", "no header", "a long header", "no tensors", "no sharding"],
)
def test_a_damaged_file_is_refused(folder, content):
    (file,) = folder.iterdir()
    file.write_bytes(content)
    with pytest.raises(ValueError, match="holds no tensors"):
        read_shards(folder, TENSORS)


def test_a_pipe_is_not_opened(folder):
    os.mkfifo(folder / "shard-2.safetensors")
    with pytest.raises(ValueError, match="a pipe or a device"):
        read_shards(folder, TENSORS)
