"""What cannot be read now, or is of another version, is not damaged and not set aside."""

import errno
import json
from pathlib import Path

import pytest

from ebft.checkpoints import manifest
from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.manifest import write_manifest
from ebft.checkpoints.resume import find_resumption
from ebft.checkpoints.snapshot import Snapshot
from ebft.config.about import About
from ebft.errors import StorageError, UserError
from tests.tiny import plain_policy, tiny_tokenizer

RECIPE = {"training": {"steps": 2}}


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "PAUSES", (0.0, 0.0))
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (1, 2):
        snapshot = Snapshot(plain_policy(), tiny_tokenizer(), About(step, RECIPE, {}), {})
        checkpoints.save(snapshot, step=step)
    return checkpoints


def resume(own, *, overwrite=True, resume="auto", verified=False):
    return find_resumption(
        resume, own, RECIPE, may_differ=(), overwrite=overwrite, verified=verified
    )


def names(own):
    return [path.name for path in own.saved()]


@pytest.fixture
def stale(monkeypatch):
    """Makes so many reads fail, as those of a network file system do."""

    def fail(module, name, times):
        read, left = getattr(module, name), [times]

        def failing(*arguments, **more):
            if left[0] > 0:
                left[0] -= 1
                raise OSError(errno.ESTALE, "Stale file handle", "here")
            return read(*arguments, **more)

        monkeypatch.setattr(module, name, failing)

    return fail


@pytest.mark.parametrize(
    "where", [(manifest, "_checksum"), (Path, "iterdir"), (Path, "read_text")], ids=lambda it: it[1]
)
class TestWhatCannotBeRead:
    def test_is_tried_again(self, own, stale, where):
        stale(*where, times=2)
        assert resume(own).step == 2

    def test_is_not_damaged(self, own, stale, where, monkeypatch):
        stale(*where, times=99)
        for overwrite in (False, True):
            with pytest.raises(StorageError, match="cannot read here: Stale file handle"):
                resume(own, overwrite=overwrite)
        monkeypatch.undo()
        assert names(own) == ["step-000001", "step-000002"]


@pytest.mark.parametrize("named", [True, False])
def test_another_format_is_the_user_s_to_deal_with(own, named):
    newest = own.saved()[-1]
    file = newest / "run" / "about.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2, "ebft": "0.0.1"}))
    (newest / "manifest.sha256").unlink()
    write_manifest(newest)
    with pytest.raises(UserError, match="it has format 2, written by") as raised:
        resume(own, resume=str(newest) if named else "auto")
    assert f"checkpoint.resume = {newest}: " in str(raised.value)
    assert names(own) == ["step-000001", "step-000002"]


def test_a_process_that_sees_the_folder_late_takes_what_the_main_one_chose(own):
    """It still sees a later checkpoint, which the main process has set aside."""
    chosen = str(own.saved()[0])
    assert resume(own, resume=chosen, overwrite=False, verified=True).step == 1
    with pytest.raises(UserError, match="the run continued to step-000002, which would be lost"):
        resume(own, resume=chosen, overwrite=False)


def test_what_is_missing_is_damaged(own):
    (own.saved()[-1] / "config.json").unlink()
    assert resume(own).step == 1
    assert names(own) == ["step-000001"]


def test_a_file_in_the_place_of_a_checkpoint_is_damaged(own):
    newest = own.saved()[-1]
    newest.with_name("step-000009").write_text("")
    assert resume(own).folder == newest
    assert "step-000009" not in names(own)
