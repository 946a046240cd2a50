"""HumanEval+ and MBPP+: rows in the format of EvalPlus's data sets, whose tests use numpy."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebft.data import numpy_of_tests
from ebft.data.humaneval import HumanEval
from ebft.data.mbpp import MBPP
from ebft.errors import UserError
from ebft.sandbox import SandboxOptions
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.functions import unit_tests

COMPARE = """import numpy as np

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(one, float) for one in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    exact = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact and atol != 0:
        np.testing.assert_allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact
"""
LOOP = "for i, (inp, exp) in enumerate(zip(inputs, results)):"
THIRDS = {
    "task_id": "HumanEval/900", "entry_point": "thirds",
    "prompt": 'def thirds(xs):\n    """A third of each."""\n',
    "canonical_solution": "\n    return [x / 3 for x in xs]\n",
    "test": f"\n\n{COMPARE}\ndef check(candidate):\n"
    "    inputs = [[[1.0, 2.0]], [[]], [[-3.0]]]\n"
    "    results = [[0.333333, 0.666667], [], [-1.0]]\n"
    f"    {LOOP}\n        assertion(candidate(*inp), exp, 0)\n",
}  # fmt: skip
ROOT = {
    "task_id": 900, "source_file": "ours.ipynb", "prompt": "Find a square root.",
    "code": "def root(x):\r\n    return math.sqrt(x)", "test_imports": ["import math"],
    "test_list": ["assert root(4) == 2", "assert root(9) == 3", "assert root(0) == 0"],
    "test": f"{COMPARE}\ninputs = [[4], [2], [0]]\nresults = [2.0, 1.4142136, 0.0]\n"
    f"{LOOP}\n    assertion(root(*inp), exp, 0)\n",
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Writes rows as a file, and as a folder that stands for a data set of the hub."""

    def call(*rows):
        file = tmp_path / "rows" / "test.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return call


def score(example, rollout):
    attempt = Attempt(example.prompt, rollout, example.completion, example.check, example.name)
    return unit_tests(attempt, SandboxOptions())


@pytest.mark.parametrize("source", ["path", "dataset"])
def test_humaneval_plus(write, source):
    file = write(THIRDS)
    part = HumanEval(plus=True, **{source: file if source == "path" else str(file.parent)})
    splits = part()
    assert not splits.train
    (example,) = splits.held_out
    assert (example.name, example.prompt) == ("HumanEval/900", THIRDS["prompt"])
    assert score(example, example.completion) == 1
    assert score(example, "    return [x * 0.33333 for x in xs]\n") == 0, "beyond the tolerance"
    assert score(example, "    return [x / 3 for x in xs][:1]\n") == 0


@pytest.mark.parametrize("source", ["path", "dataset"])
def test_mbpp_plus(write, source):
    file = write(ROOT)
    part = MBPP(
        plus=True, tests_shown=1, **{source: file if source == "path" else str(file.parent)}
    )
    splits = part()
    assert not splits.train, "task 900 is one to train on only in MBPP"
    (example,) = splits.held_out
    assert example.name == "MBPP/900"
    assert example.prompt == f'"""\n{ROOT["prompt"]}\nassert root(4) == 2\n"""\n'
    assert score(example, "import math\ndef root(x): return math.sqrt(x)\n") == 1
    assert score(example, "def root(x): return {4: 2, 9: 3, 0: 0}[x]\n") == 0, "passes test_list"


def test_without_plus_their_tests_cannot_run(write, caplog):
    (example,) = HumanEval(path=write(THIRDS))().held_out
    assert score(example, example.completion) == 0
    assert "HumanEval/900 cannot run" in caplog.text


def test_what_else_they_use_of_numpy_is_said(write, caplog):
    row = THIRDS | {"test": "import numpy as np\ndef check(f): assert np.array(f([])).sum() == 0\n"}
    (example,) = HumanEval(path=write(row), plus=True)().held_out
    assert score(example, example.completion) == 0
    assert "HumanEval/900 cannot run (numpy.array is not there" in caplog.text


def test_large_tests_are_run(write):
    """The largest of HumanEval+ have megabytes."""
    inputs = [[[float(x)] * 100] for x in range(2000)]
    test = THIRDS["test"].replace("[[[1.0, 2.0]], [[]], [[-3.0]]]", repr(inputs))
    results = repr([[xs[0] / 3] * 100 for (xs,) in inputs])
    test = test.replace("[[0.333333, 0.666667], [], [-1.0]]", results)
    assert len(test) > 2_000_000
    (example,) = HumanEval(path=write(THIRDS | {"test": test}), plus=True)().held_out
    assert score(example, example.completion) == 1
    assert score(example, "    return [x / 3 for x in xs] if xs[0] < 1999 else []\n") == 0


def test_rows_of_the_other_format_are_refused(write):
    file = write(ROOT)
    with pytest.raises(UserError, match="line 1 has no 'text'"):
        MBPP(path=file)()
    with pytest.raises(UserError, match=r"data\.dataset = .*: row 1, task_id: has 900"):
        HumanEval(dataset=str(file.parent))()
    with pytest.raises(UserError, match="line 1 has no 'task_id'"):
        HumanEval(path=write({"prompt": "x"}))()


def test_the_rows_are_in_one_place(write):
    for given_ in ({}, {"path": "x.jsonl", "dataset": "evalplus/humanevalplus"}):
        with pytest.raises(ValueError, match="give path, a file of its rows, or dataset"):
            HumanEval(plus=True, **given_)
    with pytest.raises(UserError, match="nobody/nothing, split test: cannot be loaded"):
        HumanEval(dataset="nobody/nothing")()


NUMBERS = st.one_of(
    st.floats(width=32), st.integers(-(10**6), 10**6), st.sampled_from([math.inf, math.nan, 0.0])
)


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS | st.none(), st.sampled_from([0.0, 1e-8, 1e-6, 1e-3]))),
    st.sampled_from([0.0, 1e-6, 0.5]),
    st.booleans(),
)
def test_it_compares_as_numpy_does(triples, atol, nested):
    """Second numbers are the first, moved a little, or others."""
    desired = [a for a, _, _ in triples]
    actual = [a * (1 + move) if b is None else b for a, b, move in triples]
    if nested:
        desired, actual = [[one, one] for one in desired], [(one, one) for one in actual]

    def passes(compare):
        try:
            compare(actual, desired, rtol=1e-7, atol=atol)
        except AssertionError:
            return False
        return True

    with np.errstate(all="ignore"):
        assert passes(numpy_of_tests.testing.assert_allclose) == passes(np.testing.assert_allclose)


@pytest.mark.parametrize(
    ("actual", "desired"), [([1.0], [1.0, 1.0]), ([[1.0]], [1.0]), (1.0, [2.0])]
)
def test_other_shapes_are_not_close(actual, desired):
    with pytest.raises(AssertionError, match="is not close to"):
        numpy_of_tests.testing.assert_allclose(actual, desired)
