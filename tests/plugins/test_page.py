"""docs/plugins.md, followed to the letter: its files written, its commands run, in order."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ebft import testing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r'^```(sh|python)(?: title="(.*?)")?\n(.*?)^```', PAGE, re.M | re.S)
PROGRAMS = {"ebft": [sys.executable, "-m", "ebft.cli.main"], "python": [sys.executable]}


@pytest.mark.slow
def test_the_steps(tiny_model, python_folder, tmp_path):
    folder = tmp_path
    # A small model and few texts in place of the embedded ones; nothing else is different.
    small = [f"model.path={tiny_model}", f"data.path={python_folder}", "training.steps=2"]
    for language, title, text in BLOCKS:
        if language == "python":
            assert title, "a file of the page has a name"
            (folder / title).write_text(text)
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line)
            if program == "cd":
                folder /= words[0]
                continue
            more = small if words[:2] == ["run", "recipe.yaml"] else []
            done = subprocess.run(
                [*PROGRAMS[program], *words, *more],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, (line, done.stdout, done.stderr)
    checkpoints = folder.glob("runs/*/checkpoints/step-000002/model.safetensors")
    assert {path.parts[-4] for path in checkpoints} == {
        "my_features", "kernel", "none", "embeddings"
    }  # fmt: skip


def test_every_block_is_followed():
    assert len(BLOCKS) == PAGE.count("\n```") / 2
    assert sum(language == "sh" for language, _, _ in BLOCKS) >= 5


def test_the_map_has_at_most_ten_lines():
    (source,) = [text for _, title, text in BLOCKS if title == "my_features.py"]
    body = re.search(r"    def __call__.*?(?=\n\n\n@ebft)", source, re.S)
    assert len([line for line in body[0].splitlines() if line.strip()]) <= 10


def test_it_names_every_check():
    named = re.findall(r"`(check_\w+)`", PAGE)
    assert set(named) == {name for name in testing.__all__ if name.startswith("check_")}


def test_its_links_are_there():
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link
