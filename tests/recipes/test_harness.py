"""lm-evaluation-harness on a checkpoint: a small task of its own format, from a local file."""

import json
import sys
from importlib.util import find_spec

import pytest

from ebft.evaluation.harness import HarnessFigure, figures
from tests.conftest import RECIPES

HARNESS = pytest.mark.skipif(
    find_spec("lm_eval") is None, reason="lm-evaluation-harness is not installed (ebft[harness])"
)
TASK = """\
task: letters
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}} ="
doc_to_choice: ["a", "b c"]
doc_to_target: answer
metric_list:
  - metric: acc
"""


@pytest.fixture
def tiny(tiny_model, tmp_path):
    rows = [{"question": letter, "answer": i % 2} for i, letter in enumerate("abcdefgh")]
    file = tmp_path / "letters.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "letters.yaml").write_text(TASK.format(file=file))
    return [
        str(RECIPES / "evaluate.yaml"),
        f"model.path={tiny_model}",
        "evaluation.evaluators=[]",
        "harness.tasks=[letters]",
        f"harness.include_path={folder}",
        f"output_dir={tmp_path / 'eval'}",
    ]


@HARNESS
def test_a_task(ebft, tiny, tmp_path):
    status, out, err = ebft("eval", *tiny)
    assert status == 0, err
    assert "letters" in out
    (line,) = map(json.loads, (tmp_path / "eval" / "evaluations.jsonl").open())
    assert line["name"] == "letters acc,none"
    assert line["mean"] in [i / 8 for i in range(9)]
    assert line["half_width_95"] >= 0


@HARNESS
def test_a_task_that_is_not_there(ebft, tiny):
    status, _, err = ebft("eval", *tiny, "harness.tasks=[lettres]")
    assert status == 2
    assert "harness.tasks: lettres: lm-evaluation-harness has no such task; did you mean" in err


def test_without_the_harness(ebft, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    status, _, err = ebft("eval", *tiny)
    assert status == 2
    assert "needs lm-evaluation-harness; run: pip install 'ebft[harness]'" in err


def test_figures_of_a_row():
    row = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": 0.1, "bleu,none": 3, "bleu_stderr,none": "N/A", "ppl,none": float("inf"), "one,none": 1.0, "one_stderr,none": float("nan")}  # fmt: skip  # noqa: E501
    assert figures("x", row) == [
        HarnessFigure("x", "acc,none", 0.5, 0.1),
        HarnessFigure("x", "bleu,none", 3.0, None),
        HarnessFigure("x", "one,none", 1.0, None),
    ]
