"""Uploads to a hub on this machine: what is uploaded, when, and what happens if that fails."""

import logging
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.hub import HubOptions
from ebft.checkpoints.publisher import Publisher
from ebft.checkpoints.snapshot import Snapshot
from ebft.checkpoints.upload import Request, Upload
from ebft.config.about import About
from ebft.errors import UserError
from tests.hub import TOKEN, Hub, serving
from tests.tiny import plain_policy, tiny_tokenizer

CARD = "---\ntags:\n- ebft\n---\n\n# A model\n"
LOAD = """
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("me/tiny")
AutoTokenizer.from_pretrained("me/tiny")
print(sum(float(weight.double().sum()) for weight in model.state_dict().values()))
"""


@pytest.fixture
def hub(monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ebft")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # its content goes to another service
    found = Hub()
    with serving(found) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield found


@pytest.fixture
def run(tmp_path):
    """Makes a publisher with its checkpoints, and what saves one of a step."""

    def make(keep=3, **options):
        checkpoints = Checkpoints(tmp_path / "checkpoints", keep=keep)
        hub = HubOptions(repo="me/tiny", **options)
        publisher = Publisher(hub, checkpoints, tmp_path / "hub.json")

        def save(step):
            policy = plain_policy()
            with torch.no_grad():
                policy.lm_head.weight += step
            about = About(step, {"seed": 0}, {})
            snapshot = Snapshot(policy, tiny_tokenizer(), about, {}, card=CARD)
            return checkpoints.save(snapshot, step=step)

        return publisher, save

    return make


def names(checkpoint, *, without=()):
    files = (path for path in checkpoint.rglob("*") if path.is_file())
    found = {path.relative_to(checkpoint).as_posix() for path in files}
    return {name for name in found if not name.startswith(tuple(without))}


def same_files(repository, checkpoint):
    return all(
        (checkpoint / name).read_bytes() == content for name, content in repository.files.items()
    )


def warnings(caplog):
    return [it.getMessage() for it in caplog.records if it.levelno >= logging.WARNING]


def python(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_a_hub_needs_to_load_the_model(hub, run, caplog):
    publisher, save = run()
    checkpoint = save(4)
    publisher.saved(checkpoint, is_last=True)
    publisher.finish()
    repository = hub.repositories["me/tiny"]
    assert repository.private
    assert repository.commits == ["Step 4"]
    assert repository.files.keys() == names(checkpoint, without=("run/", "manifest"))
    assert same_files(repository, checkpoint)
    assert warnings(caplog) == []
    assert f"step-000004 is on the hub: {hub.address}/me/tiny/commit/" in caplog.text
    saved = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    expected = sum(float(weight.double().sum()) for weight in saved.values())
    assert float(python(LOAD)) == pytest.approx(expected, rel=1e-12)


def test_without_git_lfs_and_with_the_state_of_the_run(hub, run, monkeypatch):
    """Files that the hub wants in the commit itself, which huggingface_hub sends in another way."""
    monkeypatch.delenv("HF_HUB_DISABLE_XET")
    hub.large = ()
    publisher, save = run(state=True, private=False)
    checkpoint = save(1)
    publisher.saved(checkpoint, is_last=True)
    publisher.finish()
    repository = hub.repositories["me/tiny"]
    assert not repository.private
    assert repository.files.keys() == names(checkpoint)
    assert same_files(repository, checkpoint)
    assert not any(request.startswith("PUT") for request in hub.requests)


def test_other_weights_that_were_there_are_deleted(hub, run):
    publisher, save = run()
    checkpoint = save(1)
    publisher.saved(checkpoint, is_last=True)
    publisher.finish()
    files = hub.repositories["me/tiny"].files
    files |= {
        "model-00001-of-00002.safetensors": b"old",
        "adapter_config.json": b"{}",
        "NOTES": b"",
    }
    publisher.saved(save(2), is_last=True)
    publisher.finish()
    assert files.keys() == {*names(checkpoint, without=("run/", "manifest")), "NOTES"}


@pytest.mark.parametrize(
    ("status", "where", "says"),
    [
        (401, "", "401 the token is not valid; run `hf auth login` or set HF_TOKEN"),
        (403, "commit", "403 the token may not write there; give it the right to"),
        (500, "create", "500 refused with 500"),
        (500, "commit", "500 refused with 500"),
        (400, "lfs", "400 "),
    ],
)
def test_an_upload_that_fails_is_made_with_the_next_checkpoint(
    hub, run, caplog, status, where, says
):
    publisher, save = run(every=2)
    hub.fail(status, where)
    publisher.saved(save(2), is_last=False)
    wait(publisher)
    (warning,) = warnings(caplog)
    assert warning.startswith("checkpoint.hub.repo = me/tiny: step-000002 was not uploaded (")
    assert says in warning
    hub.times = 0
    publisher.saved(save(3), is_last=False)  # which is not due
    publisher.finish()
    assert hub.repositories["me/tiny"].commits == ["Step 3"]
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    ("status", "where", "says"),
    [
        (401, "", "401 the token is not valid; run `hf auth login` or set HF_TOKEN, or set"),
        (403, "create", "403 the token may not write there; give it the right to, or name"),
        (403, "auth-check", "403 the token may not write there; give it the right to, or name"),
    ],
)
def test_a_token_that_is_refused_is_a_mistake_before_the_run(hub, run, status, where, says):
    publisher, _ = run()
    hub.fail(status, where)
    with pytest.raises(UserError) as error:
        publisher.check_access()
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"checkpoint.hub.repo = me/tiny: nothing can be uploaded: {says}")


@pytest.mark.parametrize(
    ("status", "says"),
    [(500, "500 refused with 500"), (404, "404 "), ("hang", "it took longer than 4 s")],
)
def test_a_hub_that_cannot_be_asked_is_no_mistake(hub, run, caplog, monkeypatch, status, says):
    monkeypatch.setattr("ebft.checkpoints.publisher.ASKING", 4.0)
    publisher, save = run()
    hub.fail(status, "auth-check")
    publisher.check_access()
    (warning,) = warnings(caplog)
    assert "the hub did not say whether checkpoints can be uploaded (" in warning
    assert says in warning
    assert "; the run begins, and uploads are tried" in warning
    hub.open()
    publisher.saved(save(2), is_last=True)
    publisher.finish()
    assert hub.repositories["me/tiny"].commits == ["Step 2"]


def test_a_hub_that_agrees_has_made_the_repository(hub, run, caplog):
    publisher, _ = run()
    publisher.check_access()
    assert warnings(caplog) == []
    repository = hub.repositories["me/tiny"]
    assert repository.private
    assert repository.commits == []


@pytest.mark.parametrize("where", ["create", pytest.param("/lfs/", marks=pytest.mark.slow)])
def test_a_hub_that_does_not_answer(hub, run, caplog, where):
    publisher, save = run(timeout=4.0)
    hub.fail("hang", where)
    publisher.saved(save(2), is_last=True)
    publisher.finish()
    failed, missing = warnings(caplog)
    assert "step-000002 was not uploaded (it took longer than 4 s); the next" in failed
    assert "step-000002 is not on the hub; upload it with: hf upload me/tiny " in missing
    assert any(re.search(where, request) for request in hub.requests)


def wait(publisher):
    end = time.monotonic() + 60
    while publisher._running is not None:
        assert time.monotonic() < end
        time.sleep(0.05)
        publisher.poll()


def test_no_hub_at_all_and_the_command_that_uploads_later(hub, run, caplog, monkeypatch):
    publisher, save = run()
    address = os.environ["HF_ENDPOINT"]
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        publisher.check_access()
        publisher.saved(save(1), is_last=False)
        wait(publisher)
        checkpoint = save(2)
        publisher.saved(checkpoint, is_last=True)
        publisher.finish()
    asked, first, second, last = warnings(caplog)
    assert "did not say whether checkpoints can be uploaded (ConnectError: " in asked
    assert "step-000001 was not uploaded (ConnectError: " in first
    assert "step-000002 was not uploaded (ConnectError: " in second
    said, _, command = last.partition("; upload it with: ")
    assert said == f"{checkpoint} is not on the hub"
    monkeypatch.setenv("HF_ENDPOINT", address)
    tool = Path(sys.executable).with_name("hf")
    done = subprocess.run([tool, *shlex.split(command)[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["me/tiny"]
    assert repository.private
    assert repository.files.keys() == names(checkpoint, without=("run/", "manifest"))
    assert same_files(repository, checkpoint)


def test_only_due_checkpoints_and_the_last(hub, run):
    publisher, save = run(every=4)
    for step in (2, 4, 6):
        publisher.saved(save(step), is_last=step == 6)
        wait(publisher)
    publisher.finish()
    assert hub.repositories["me/tiny"].commits == ["Step 4", "Step 6"]


def test_nothing_is_uploaded_twice(hub, run, tmp_path, caplog):
    def again(**options):
        publisher, save = run(**options)
        publisher.saved(save(3), is_last=True)
        publisher.finish()
        return hub.requests.count("POST /api/repos/create")

    assert again() == 1
    assert again() == 1
    assert again(state=True) == 2
    assert again(state=True) == 2
    (tmp_path / "hub.json").write_text('{"repo": 5}')
    assert again(state=True) == 3
    (warning,) = warnings(caplog)
    assert "hub.json is damaged (" in warning


def test_a_checkpoint_is_not_deleted_while_it_is_uploaded_or_waits(hub, run, tmp_path):
    publisher, save = run(keep=1, every=2)
    hub.fail("hang", "commit")

    def there():
        return sorted(it.name for it in (tmp_path / "checkpoints").iterdir())

    for step in (2, 4, 5):
        publisher.saved(save(step), is_last=False)
    assert there() == ["step-000002", "step-000004", "step-000005"]
    hub.open()
    wait(publisher)
    assert there() == ["step-000005"]
    assert hub.repositories["me/tiny"].commits == ["Step 2", "Step 4"]


def test_of_several_that_wait_the_newest_is_uploaded(hub, run):
    publisher, save = run()
    hub.fail("hang")
    for step in (1, 2, 3):
        publisher.saved(save(step), is_last=False)
    hub.open()
    publisher.finish()
    assert hub.repositories["me/tiny"].commits == ["Step 1", "Step 3"]


def test_a_run_that_stops_does_not_wait(hub, run, caplog):
    publisher, save = run()
    hub.fail("hang")
    began = time.monotonic()
    publisher.saved(save(1), is_last=False)
    process = publisher._running[1]._process
    publisher.stop()
    assert time.monotonic() - began < 10
    assert process.returncode is not None
    (warning,) = warnings(caplog)
    assert "step-000001 is not on the hub; upload it with: hf upload me/tiny " in warning
    publisher.stop()
    assert len(warnings(caplog)) == 1


def test_without_options_nothing_happens(tmp_path):
    publisher = Publisher(None, Checkpoints(tmp_path, keep=1), tmp_path / "hub.json")
    publisher.check_access()
    publisher.saved(tmp_path / "step-000001", is_last=True)
    publisher.poll()
    publisher.finish()
    assert list(tmp_path.iterdir()) == []


def test_an_upload_ends_with_the_run(hub, tmp_path):
    """A run that is killed closes the pipe to it."""
    hub.fail("hang")
    upload = Upload(Request("me/tiny", True, str(tmp_path), (), "Step 1"), timeout=60.0)
    assert upload.answer() is None
    upload._process.stdin.close()
    upload._process.wait(30)
    assert upload.answer().failure == "its process ended with status 1"


@pytest.mark.parametrize(
    ("repo", "says"),
    [
        ("tiny", "has no owner; give OWNER/NAME, such as me/tiny"),
        ("me/a b", "is no name of a repository (Repo id must use alphanumeric chars"),
        ("a/b/c", "is no name of a repository"),
        ("me/x.git", "is no name of a repository"),
        ("", "is no name of a repository"),
    ],
)
def test_names_of_repositories(repo, says):
    with pytest.raises(ValueError, match="repo") as error:
        HubOptions(repo=repo)
    assert says in str(error.value)


def test_what_this_machine_lacks(monkeypatch, tmp_path):
    hub = HubOptions(repo="me/tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    (line,) = hub.missing()
    assert line == (
        "checkpoint.hub.repo = me/tiny: there is no token of the Hugging Face Hub; run "
        "`hf auth login` or set HF_TOKEN, with a token that may write"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert list(hub.missing()) == []
    monkeypatch.setenv("HF_TOKEN", "hf_ü")
    (line,) = hub.missing()
    assert "the token of the Hugging Face Hub has letters that no token has; copy it again" in line
    assert "ü" not in line
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "hub.example")
    (line,) = hub.missing()
    assert "me/tiny: HF_ENDPOINT = hub.example: is no address of a hub; begin it with" in line
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (line,) = hub.missing()
    assert "because HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set; unset it" in line
