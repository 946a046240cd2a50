"""Runs whose checkpoints are uploaded to a hub on this machine."""

import json

import pytest

from tests.hub import TOKEN, Hub, serving

REPO = "checkpoint.hub={repo: me/tiny, timeout: 120}"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Such a hub, which the processes that upload find in the environment."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    found = Hub()
    with serving(found) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield found


def test_the_checkpoints_of_a_run_and_none_twice(ebft, tiny_run, hub, tmp_path):
    status, _, err = ebft(*tiny_run(REPO))
    assert status == 0, err
    commits = hub.repositories["me/tiny"].commits
    assert commits[-1] == "Step 3"
    card = hub.repositories["me/tiny"].files["README.md"].decode()
    assert "library_name: transformers" in card
    assert str(tmp_path) not in card
    assert not any(name.startswith("run/") for name in hub.repositories["me/tiny"].files)
    assert "step-000003 is on the hub: " in err
    uploaded = json.loads((tmp_path / "run" / "hub.json").read_text())
    assert uploaded["commit"].startswith(f"{hub.address}/me/tiny/commit/")
    requests = len(hub.requests)
    status, _, err = ebft(*tiny_run(REPO, "checkpoint.resume=auto"))
    assert status == 0, err
    asked = hub.requests[requests:]
    assert asked[-1] == "GET /api/models/me/tiny/auth-check/write"
    assert not any("commit" in request or "lfs" in request for request in asked)
    status, _, err = ebft(*tiny_run(REPO, "checkpoint.resume=auto", "training.steps=4"))
    assert status == 0, err
    assert commits[-1] == "Step 4"


def test_a_hub_that_fails_does_not_end_the_run(ebft, tiny_run, hub, tmp_path):
    hub.fail(500, "create")
    status, out, err = ebft(*tiny_run(REPO))
    assert status == 0, err
    assert "before → after" in out
    assert "the hub did not say whether checkpoints can be uploaded (500 refused with 500)" in err
    folder = tmp_path / "run" / "checkpoints" / "step-000003"
    assert "step-000003 was not uploaded (500 refused with 500)" in err
    assert f"{folder} is not on the hub; upload it with: hf upload me/tiny {folder} . " in err
    hub.open()
    status, _, err = ebft(*tiny_run(REPO, "checkpoint.resume=auto"))
    assert status == 0, err
    assert hub.repositories["me/tiny"].commits == ["Step 3"]


def test_a_run_that_ends_with_an_error_says_what_is_not_uploaded(
    ebft, tiny_run, hub, monkeypatch, capsys
):
    def broken(*_given):
        raise ZeroDivisionError

    hub.fail("hang")
    monkeypatch.setattr("ebft.runs.measuring.Measuring.report", broken)
    with pytest.raises(ZeroDivisionError):
        ebft(*tiny_run(REPO))
    assert "step-000003 is not on the hub; upload it with: hf upload me/tiny " in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(("status", "says"), [(401, "is not valid"), (403, "may not write there")])
def test_a_refused_token_ends_the_run_before_the_model_is_loaded(
    ebft, tiny_run, hub, tmp_path, status, says
):
    hub.fail(status)
    status, _, err = ebft(*tiny_run(REPO))
    assert status == 2
    *phases, line = err.strip().splitlines()
    assert line.startswith("checkpoint.hub.repo = me/tiny: nothing can be uploaded: ")
    assert says in line
    assert phases == ["importing torch and transformers …", "asking the hub about me/tiny …"]
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_no_token(ebft, tiny_run, hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    status, _, err = ebft(*tiny_run(REPO))
    assert status == 2
    *_, line = err.strip().splitlines()
    assert "there is no token of the Hugging Face Hub; run `hf auth login` or set HF_TOKEN" in line
    assert not (tmp_path / "run").exists()
    status, out, _ = ebft("validate", *tiny_run(REPO)[1:])
    assert status == 0
    assert "there is no token of the Hugging Face Hub" in out
