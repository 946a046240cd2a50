"""`tune`: ours is what torchtune would refuse; all else is torchtune's, unchanged."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ebft.cli import tune as command
from ebft.cli.tune import OurRun, parse

TUNE = Path(sys.executable).with_name("tune")
needs_torchtune = pytest.mark.skipif(find_spec("torchtune") is None, reason="needs torchtune")


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        ("run a.yaml", ([], "a.yaml", [])),
        ("run a.yml n=3 --dry-run", ([], "a.yml", ["n=3", "--dry-run"])),
        ("run --nproc_per_node 2 a.yaml n=3", (["--nproc_per_node", "2"], "a.yaml", ["n=3"])),
        ("run --nproc-per-node=2 a.yaml", (["--nproc-per-node=2"], "a.yaml", [])),
        ("run", None),
        ("ls", None),
        ("--help", None),
        ("run --help", None),
        ("run lora_finetune_single_device --config a.yaml", None),
        ("run recipes/mine.py --config a.yaml", None),
        ("run --nproc_per_node 2 full_finetune_distributed --config b.yaml", None),
        ("cp llama3_2/1B_full .", None),
        ("validate a.yaml", None),
    ],
)
def test_what_is_ours(arguments, ours):
    assert parse(arguments.split()) == (OurRun(*ours) if ours else None)


def test_without_torchtune_the_rest_is_said_to_be_missing(monkeypatch, capsys):
    monkeypatch.setattr("ebft.parts.packages.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["tune", "ls"])
    assert command.main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "tune ls: ebft has only `tune run FILE.yaml`; the rest needs torchtune, which is not "
        "installed; run: pip install 'ebft[torchtune]'\n"
    )


def test_without_torchtune_ours_is_run(monkeypatch, capsys):
    monkeypatch.setattr("ebft.parts.packages.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["tune", "run", "nowhere.yaml"])
    assert command.main() == 2
    assert capsys.readouterr().err.startswith("nowhere.yaml: no such file")


def tune(*arguments):
    return subprocess.run([TUNE, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
class TestTheScript:
    def test_a_run_of_ours(self, tiny_run, tmp_path):
        done = tune(*tiny_run("training.steps=1"))
        assert done.returncode == 0, done.stderr
        assert "before → after" in done.stdout
        assert (tmp_path / "run" / "checkpoints" / "step-000001" / "model.safetensors").is_file()

    def test_a_mistake(self, tiny_run):
        done = tune(*tiny_run("sampler.n=0"))
        assert done.returncode == 2
        assert done.stderr.strip() == (
            "command line: sampler.n = 0: must be greater than or equal to 1"
        )

    @needs_torchtune
    def test_torchtune_lists_its_recipes(self):
        done = tune("ls")
        assert done.returncode == 0
        assert "lora_finetune_single_device" in done.stdout

    @needs_torchtune
    def test_torchtune_answers_its_own_mistakes(self):
        done = tune("run", "lora_finetune_single_device")
        assert done.returncode == 2
        assert "--config" in done.stderr

    def test_two_processes_say_a_mistake_once(self, tiny_run):
        run, *rest = tiny_run("training.documents_per_step=5")
        done = tune(run, "--nproc_per_node", "2", *rest)
        assert done.returncode == 2
        assert done.stderr.count("training.documents_per_step = 5: cannot be divided") == 1
        assert "Traceback" not in done.stderr
