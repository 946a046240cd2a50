"""What the README shows works as it is written."""

import json
import re
import shlex
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


PLUG_IN = 'python title="token_counts.py"'


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.S)
    return found


def test_the_recipe(ebft, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(block("yaml"))
    rows = [{"question": f"a b {c}", "answer": f"{c} d"} for c in "abcdefghijkl"]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = ebft("run", "recipe.yaml", f"model.path={tiny_model}", "training.steps=1")
    assert status == 0, err
    assert Path("runs/mine/checkpoints/step-000001/config.json").is_file()


def test_the_plug_in(ebft, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("token_counts.py").write_text(block(PLUG_IN))
    status, out, err = ebft(
        *tiny_run("plugins=[token_counts.py]", "feature_map=token_counts", "training.steps=1")
    )
    assert status == 0, err
    assert "before → after" in out


@pytest.mark.parametrize("command", re.findall(r"^    tune (run .*)$", README, re.M))
def test_the_commands(ebft, command, tmp_path):
    arguments = command.replace("FOLDER_OF_PY_FILES", str(tmp_path)).replace("FOLDER", "folder")
    if "plugins=" in command:
        (tmp_path / "token_counts.py").write_text(block(PLUG_IN))
        arguments = arguments.replace("[token_counts.py]", f"[{tmp_path}/token_counts.py]")
    _, *words = shlex.split(arguments)
    status, _, err = ebft("validate", *words)
    assert status == 0, err


def test_the_files_it_names_are_there():
    root = Path(__file__).parents[2]
    names = re.findall(r"\]\((?!https)([^)]+)\)", README) + re.findall(
        r"`((?:recipes|ebft)/\S+)`", README
    )
    assert names
    for name in names:
        assert (root / name).exists(), name
