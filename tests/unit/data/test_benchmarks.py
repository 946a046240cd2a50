"""The formats of HumanEval, MBPP and GSM8K: small files of the same schema, and the real ones."""

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ebft.data.gsm8k import GSM8K
from ebft.data.humaneval import HumanEval
from ebft.data.mbpp import MBPP
from ebft.errors import UserError
from ebft.sandbox import SandboxOptions
from ebft.testing import check_data
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.functions import final_answer, unit_tests

REAL = Path(os.environ.get("EBFT_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"no data in {REAL}; EBFT_DATA says where they are"
)

PROGRAM = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
}
TASK = {
    "task_id": 11,
    "text": "Write a function to double a number.",
    "code": "def double(x):\r\n\treturn x + x",
    "test_list": ["assert double(2) == 4", "assert double(3) == ONE"],
    "test_setup_code": "ONE = 6",
    "challenge_test_list": [],
}
PROBLEM = {
    "question": "Two and two? ",
    "answer": "2 + 2 = <<2+2=4>>4.\nSo it is 4,000.\n#### 4,000",
}


def task(number, text=None):
    text = f"{TASK['text']} ({number})" if text is None else text
    return TASK | {"task_id": number, "text": text}


def write(file, rows):
    open_file = gzip.open if file.suffix == ".gz" else open
    with open_file(file, "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    return file


def passes(example, rollout=None):
    rollout = example.completion if rollout is None else rollout
    attempt = Attempt(example.prompt, rollout, example.completion, example.check, example.name)
    return unit_tests(attempt, SandboxOptions()) == 1


def test_humaneval(tmp_path):
    part = HumanEval(path=write(tmp_path / "h.jsonl.gz", [PROGRAM]))
    check_data(part)
    splits = part()
    (example,) = splits.held_out
    assert not splits.train
    assert example.name == "HumanEval/0"
    assert passes(example)
    assert not passes(example, "    return x\n")
    assert not passes(example, "    return 2 * x\n\ndef check(candidate): pass\nexit()")


def test_mbpp(tmp_path):
    rows = [task(i) for i in (1, 11, 510, 511, 601, 974, 975)]
    part = MBPP(path=write(tmp_path / "m.jsonl", rows), tests_shown=1)
    check_data(part)
    splits = part()
    assert [e.name for e in splits.held_out] == ["MBPP/11", "MBPP/510"]
    assert [e.name for e in splits.train] == ["MBPP/601", "MBPP/974"]
    example = splits.held_out[0]
    assert example.prompt == (
        '"""\nWrite a function to double a number. (11)\nassert double(2) == 4\n"""\n'
    )
    assert "\r" not in example.completion
    assert passes(example)
    assert not passes(example, "def double(x): return 4")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test_list": ["a", 5]}, "test_list: has 5 there; a text is needed"),
        ({"task_id": True}, "task_id: has True there; this is of type int"),
        ({"code": "\ud83d"}, "code: has half a surrogate pair there"),
    ],
)
def test_mbpp_with_values_of_other_kinds(tmp_path, change, says):
    with pytest.raises(UserError, match=f"line 2, {says}"):
        MBPP(path=write(tmp_path / "m.jsonl", [TASK, TASK | change]))()


def test_mbpp_trains_on_no_task_that_is_held_out_too(tmp_path):
    rows = [task(11, "a"), task(12, "b"), task(601, "a"), task(602, "c")]
    splits = MBPP(path=write(tmp_path / "m.jsonl", rows))()
    assert [e.name for e in splits.train] == ["MBPP/602"]
    assert [e.name for e in splits.held_out] == ["MBPP/11", "MBPP/12"]
    assert not MBPP(path=write(tmp_path / "test.jsonl", rows[:2]))().train


def test_gsm8k(tmp_path):
    test = write(tmp_path / "test.jsonl", [PROBLEM])
    (example,) = GSM8K(path=test).__call__().held_out
    assert example.prompt == "Question: Two and two?\nAnswer:"
    assert example.completion == " 2 + 2 = 4.\nSo it is 4,000.\n#### 4,000"
    assert example.check == "4,000"
    train = write(tmp_path / "train.jsonl", [PROBLEM | {"question": "Two and two, again?"}])
    part = GSM8K(path=test, train_path=train, calculator=True)
    check_data(part)
    assert "<<2+2=4>>" in part().train[0].completion


def test_gsm8k_trains_on_no_problem_that_is_held_out_too(tmp_path):
    problems = [PROBLEM | {"question": name} for name in "abc"]
    test = write(tmp_path / "test.jsonl", problems[:2])
    part = GSM8K(path=test, train_path=write(tmp_path / "merged.jsonl", problems))
    check_data(part)
    assert [e.prompt for e in part().train] == ["Question: c\nAnswer:"]
    says = f"data.train_path = {test}: all of its texts or prompts are among those held out"
    with pytest.raises(UserError, match=says):
        GSM8K(path=test, train_path=test)()


@pytest.mark.parametrize(
    ("rollout", "right"),
    [
        (" 2 + 2 = 4,000\n#### 4000", 1),
        ("#### $4,000.00 dollars", 1),
        ("#### 4\n#### 4000", 0),
        ("It is 17 and so 4000.", 1),
        ("It is 4000, no, 17.", 0),
        ("#### no number, 4000 before", 1),
        ("4000 ####", 0),
        ("#### -4000", 0),
        ("nothing", 0),
    ],
)
def test_final_answer(rollout, right):
    assert final_answer(Attempt("", rollout, "", "4,000", "d")) == right


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("", "the file has no rows"),
        ('{"question": "a"\n', "line 1 is not JSON"),
        pytest.param("[" * 10**5, "line 1 is nested too deeply", id="deep"),
        ("[1]\n", "line 1 is not a JSON object"),
        ('{"question": "a", "answer": 4}\n', "line 1, answer: has 4 there; a text"),
        ('{"question": "a", "answer": "4"}\n', "row 1: the answer has no ####"),
    ],
)
def test_a_file_that_is_not_one(tmp_path, content, says):
    file = tmp_path / "test.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=f"data.path = {file}: .*{says}"):
        GSM8K(path=file)()


def test_a_file_that_is_not_compressed(tmp_path):
    file = tmp_path / "h.jsonl.gz"
    file.write_text("x")
    with pytest.raises(UserError, match=r"h\.jsonl\.gz: cannot be read"):
        HumanEval(path=file)()


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_every_known_solution_passes_in_the_sandbox(name):
    """And none of them passes without its body."""
    source = {
        "humaneval": HumanEval(path=REAL / "humaneval" / "HumanEval.jsonl.gz"),
        "mbpp": MBPP(path=REAL / "mbpp" / "mbpp.jsonl"),
    }[name]
    examples = source().held_out
    assert len(examples) == {"humaneval": 164, "mbpp": 500}[name]
    with ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(passes, examples))
        empty = list(pool.map(lambda example: passes(example, "    pass\n"), examples[::5]))
    failed = [example.name for example, good in zip(examples, passed, strict=True) if not good]
    assert failed == []
    assert not any(empty)


@needs_data
def test_the_real_answers_are_right():
    examples = GSM8K(path=REAL / "gsm8k" / "test.jsonl")().held_out
    assert len(examples) == 1319
    for example in examples:
        attempt = Attempt(example.prompt, example.completion, "", example.check, example.name)
        assert final_answer(attempt) == 1, example.name
