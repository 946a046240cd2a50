"""Commands that list, check or copy do not wait for torch: in a new process, they import none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "recipes"
EXAMPLE = ROOT / "plugins" / "ebft-example" / "ebft_example.py"
HEAVY = ["torch", "transformers", "datasets", "pandas", "scipy"]
PROGRAM = f"""\
import json, sys
from ebft.cli.main import main
try:
    status = main({{arguments!r}})
except SystemExit as stop:
    status = stop.code
print()
print(json.dumps([status, sorted(set({HEAVY!r}) & sys.modules.keys())]))
"""
TRAINED = [
    "ebft_full", "rlvr_full", "sft_full", "ebft_lora", "ebft_completion", "ebft_chat",
    "ebft_tiny_programs", "compat/authors", "paper/qa_code_qwen2.5_1.5b",
]  # fmt: skip


def imported(*arguments, cwd):
    """The exit status of a command line, and what it has imported of `HEAVY`."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=list(arguments))],
        cwd=cwd, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["ls"],
        ["ls", "rewards"],
        ["ls", "hf_tree"],
        ["ls", "ebft_example", "--plugin", str(EXAMPLE)],
        ["cp", "ebft_full", "mine.yaml"],
        ["new-plugin", "my-features"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_listing_and_copying(arguments, tmp_path):
    assert imported(*arguments, cwd=tmp_path) == (0, [])


def test_the_doctor_asks_another_process(tmp_path):
    status, heavy = imported("doctor", cwd=tmp_path)
    assert status in (0, 1)  # 1: `tune` is not that of ebft
    assert heavy == []


@pytest.mark.parametrize("recipe", [*TRAINED, "evaluate", "ablations/kernels", "studies/methods"])
def test_validating(recipe, tmp_path):
    assert imported("validate", str(RECIPES / f"{recipe}.yaml"), cwd=tmp_path) == (0, [])


def test_an_optimizer_is_imported_to_check_what_is_unusual(tmp_path):
    arguments = ["validate", str(RECIPES / "sft_full.yaml"), "optimizer.lr=-1.0"]
    status, heavy = imported(*arguments, cwd=tmp_path)
    assert status == 2
    assert "torch" in heavy


def test_a_dry_run_imports_torch_alone(tmp_path):
    status, heavy = imported(
        "run", str(RECIPES / "ebft_full.yaml"), "--dry-run", "model.device=cpu", cwd=tmp_path
    )
    assert (status, heavy) == (0, ["torch"])
