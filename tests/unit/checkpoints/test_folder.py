"""A checkpoint is there whole, or it is not there."""

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ebft.checkpoints.folder import Checkpoints, kept_steps, remove, set_aside
from ebft.checkpoints.manifest import find_damage
from ebft.checkpoints.snapshot import Snapshot
from ebft.config.about import About
from ebft.errors import StorageError
from tests.tiny import plain_policy, tiny_tokenizer


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def snapshot(policy=None, step=1):
    return Snapshot(policy or plain_policy(), tiny_tokenizer(), About(step, {}, {}), {})


def names(checkpoints):
    return [path.name for path in checkpoints.saved()]


def test_from_pretrained_loads_what_was_saved(checkpoints):
    policy, tokenizer = plain_policy(), tiny_tokenizer()
    path = checkpoints.save(snapshot(policy), step=3)
    loaded = AutoModelForCausalLM.from_pretrained(path)
    for name, value in policy.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert AutoTokenizer.from_pretrained(path)("a b").input_ids == tokenizer("a b").input_ids


def test_only_the_newest_are_kept(checkpoints):
    for step in (1, 2, 10):
        checkpoints.save(snapshot(), step=step)
    assert names(checkpoints) == ["step-000002", "step-000010"]


def test_a_full_disk_leaves_the_checkpoint_before_it_whole(checkpoints, tmp_path):
    """The limit on file sizes makes the real write fail, as a full disk does."""
    policy = plain_policy()
    kept = checkpoints.save(snapshot(policy), step=1)
    with torch.no_grad():
        policy.model.norm.weight += 1
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"checkpoint of step 2 .*step-000001"):
            checkpoints.save(snapshot(policy), step=2)
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
    checkpoints.save(snapshot(), step=5)
    assert names(checkpoints) == ["step-000005"]
    assert not half.exists()


def test_a_checkpoint_that_is_there_is_not_written_again(checkpoints):
    first = checkpoints.save(snapshot(plain_policy(seed=1)), step=1)
    before = (first / "model.safetensors").read_bytes()
    checkpoints.save(snapshot(plain_policy(seed=2)), step=1)
    assert (first / "model.safetensors").read_bytes() == before


def test_what_is_deleted_is_no_checkpoint_from_the_first_moment(checkpoints, monkeypatch):
    path = checkpoints.save(snapshot(), step=1)
    seen = []

    def killed(folder, **more):
        seen.append(names(checkpoints))
        if folder.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(path)
    assert names(checkpoints) == [] == seen[-1]
    monkeypatch.undo()
    checkpoints.clear_partial()
    assert list(path.parent.iterdir()) == []


def test_all_are_deleted_as_one_is(checkpoints, monkeypatch):
    """The newest first, and each renamed before: what is interrupted leaves whole ones."""
    for step in (1, 2):
        checkpoints.save(snapshot(), step=step)
    monkeypatch.setattr(
        "shutil.rmtree", lambda folder, **_: folder.exists() and os.kill(os.getpid(), signal.SIGINT)
    )
    with pytest.raises(KeyboardInterrupt):
        checkpoints.clear()
    assert names(checkpoints) == ["step-000001"]
    assert find_damage(checkpoints.saved()[0]) is None
    monkeypatch.undo()
    checkpoints.clear()
    assert names(checkpoints) == []


def test_one_that_cannot_be_deleted_is_named(checkpoints, monkeypatch):
    path = checkpoints.save(snapshot(), step=1)
    monkeypatch.setattr(Path, "rename", lambda *_: os.rmdir(path))  # it is not empty
    with pytest.raises(StorageError, match=r"cannot delete the checkpoint .*step-000001: "):
        checkpoints.clear()


def test_a_damaged_checkpoint_is_kept_but_does_not_count(checkpoints):
    path = checkpoints.save(snapshot(), step=1)
    assert set_aside(path).name == "step-000001.damaged"
    assert names(checkpoints) == []


@pytest.mark.parametrize(
    ("keep", "scores", "best", "kept"),
    [
        (2, {}, "lowest", {7, 9}),
        (1, {1: 0.3, 5: 0.2, 9: 0.4}, "lowest", {5, 9}),
        (1, {1: 0.3, 5: 0.2, 9: 0.4}, "highest", {9}),
        (9, {}, "lowest", {1, 3, 5, 7, 9}),
        (1, {2: 0.1}, "lowest", {9}),  # a step that has no checkpoint
    ],
)
def test_which_are_kept(keep, scores, best, kept):
    assert kept_steps([1, 3, 5, 7, 9], keep, scores, best) == kept


class TestDamage:
    @pytest.fixture
    def whole(self, checkpoints):
        path = checkpoints.save(snapshot(), step=1)
        assert find_damage(path) is None
        return path

    def test_a_bit(self, whole):
        file = whole / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        assert find_damage(whole).startswith("model.safetensors is not what was written")

    def test_an_end_that_is_missing(self, whole):
        file = whole / "run" / "state.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        assert "run/state.safetensors is not what was written" in find_damage(whole)

    def test_a_manifest_that_has_lost_a_line(self, whole):
        manifest = whole / "manifest.sha256"
        lines = manifest.read_text().splitlines(keepends=True)
        manifest.write_text("".join(line for line in lines if "model.safetensors" not in line))
        assert find_damage(whole) == "model.safetensors is not in manifest.sha256"

    def test_a_missing_file(self, whole):
        (whole / "config.json").unlink()
        assert find_damage(whole) == "config.json is missing"

    @pytest.mark.parametrize("content", ["", "x", "0 1\n", f"{'0' * 64}  ../../model\n", "\udcff"])
    def test_no_manifest(self, whole, content):
        manifest = whole / "manifest.sha256"
        manifest.write_bytes(content.encode(errors="surrogateescape"))
        assert "manifest.sha256" in find_damage(whole)
        manifest.unlink()
        assert find_damage(whole) == "it has no manifest.sha256"

    def test_sha256sum_agrees(self, whole):
        command = ["sha256sum", "--check", "--quiet", "manifest.sha256"]
        assert subprocess.run(command, cwd=whole, check=False).returncode == 0


def test_its_place_is_where_checkpoints_lie_or_will_lie(tmp_path):
    own = Checkpoints(tmp_path / "checkpoints", keep=1)
    assert own.location == tmp_path
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    assert own.location.samefile(tmp_path / "elsewhere")
