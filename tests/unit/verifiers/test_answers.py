"""The program in an answer: fences, the prose around them, and what completions end with."""

import pytest

from ebft.config.load import load_recipe
from ebft.data.opencode_instruct import program_of_tests
from ebft.errors import UserError
from ebft.sandbox import SandboxOptions
from ebft.verifiers.answers import continuation_in, program_in
from ebft.verifiers.attempts import Attempt
from ebft.verifiers.find import Verification
from ebft.verifiers.functions import program_tests
from ebft.verifiers.translations import sentence_bleu, sentence_chrf
from tests.conftest import RECIPES

CODE = "def f(x):\n    return x + 1\n"
PROSE = "This adds one. It's simple:\n\n    def f(x): pass\n"


@pytest.mark.parametrize(
    "answer",
    [
        CODE,
        f"```python\n{CODE}```\n",
        f"```\n{CODE}```",
        f"```python\n{CODE}",
        f"Here it is:\n\n```python\n{CODE}```\n{PROSE}",
        f"Here it is:\n```\n{CODE}```\n{PROSE}",
        f"{CODE}```\n{PROSE}",
        f"{CODE}```\n{PROSE}```python\nf(1)\n```\n",
        f"\n```py\n{CODE}```\n```\n2\n```\n",
        f"  ```python\n{CODE}  ```\n",
    ],
)
def test_the_program_in_an_answer(answer):
    assert program_in(answer).strip() == CODE.strip()


@pytest.mark.parametrize(
    "rollout",
    [
        "    return x + 1\n",
        f"    return x + 1\n```\n{PROSE}",
        "    return x + 1\n```python\nf(1)\n```\n",
        f"    return x + 1\n```\n{PROSE}```\n1\n```\n",
        "\n```python\n    return x + 1\n```\nDone.",
    ],
)
def test_a_continuation_is_what_stands_before_the_first_fence(rollout):
    assert continuation_in(rollout).strip() == "return x + 1"


def test_a_fence_in_a_string_is_part_of_the_program():
    code = 'def f():\n    """\n```\n>>> f()\n```\n    """\n    return 1\n'
    assert program_in(code) == continuation_in(code) == code
    assert program_in(f"```python\n{code}```\nThat is all.") == code


def attempt(rollout, check="assert f(1) == 2\nassert f(-1) == 0"):
    return Attempt("Write f, which adds one.\n", rollout, f"```python\n{CODE}```", check, "row 1")


def test_program_tests_run_the_program_and_not_the_question():
    options = SandboxOptions()
    assert program_tests(attempt(f"Sure!\n```python\n{CODE}```\n{PROSE}"), options) == 1
    assert program_tests(attempt(CODE), options) == 1
    assert program_tests(attempt("Sure!\n```python\ndef f(x):\n    return x\n```"), options) == 0
    assert program_tests(attempt(PROSE), options) == 0
    with pytest.raises(UserError, match=r"row 1 has no check; name the column"):
        program_tests(attempt(CODE, "# none"), options)


def test_the_tests_of_a_row_are_a_list_in_json_or_a_program():
    assert (
        program_of_tests('["\\nassert f(1)", "assert f(2)\\n"]', "r") == "assert f(1)\nassert f(2)"
    )
    assert program_of_tests("assert f([1])", "r") == "assert f([1])"
    with pytest.raises(UserError, match="r: its unit tests are not a list of texts"):
        program_of_tests('{"a": 1}', "r")


def test_a_right_body_followed_by_a_fence_and_prose_passes_the_benchmarks_recipe():
    """Late checkpoints write that, and counted as code it makes HumanEval near zero."""
    sets = load_recipe(RECIPES / "evaluate_benchmarks.yaml").options.evaluation.sets
    prompts = {
        "HumanEval": ('def f(x):\n    """Adds one."""\n', "    return x + 1\n"),
        "MBPP": ('"""\nWrite f, which adds one.\nassert f(1) == 2\n"""\n', CODE),
    }
    for benchmark in sets[:2]:
        prompt, body = prompts[benchmark.name]
        (accuracy,) = benchmark.evaluators
        written = [
            body,
            f"{body}```\n\nThis function adds one.\n\n```python\nf(1) == 3\n```\n",
            body.replace("+", "-"),
            f"{body.replace('+', '-')}```\n\nThis function adds one.\n",
        ]
        if benchmark.name == "MBPP":
            written += [f"```python\n{body}```\nThat is it.", f"\n```python\n{body}"]
        verification = accuracy.verification()
        assert isinstance(verification, Verification)
        attempts = [Attempt(prompt, text, body, "assert f(1) == 2", "one") for text in written]
        assert verification(attempts) == [1, 1, 0, 0, 1, 1][: len(written)], benchmark.name


def test_sentence_metrics_are_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    reference = "The goods cost less than 20 euros."
    one = Attempt("", " The goods cost under 20 euros.\nGerman: Ja.", f" {reference}", "", "d")
    line = "The goods cost under 20 euros."
    assert sentence_bleu(one) == sacrebleu.sentence_bleu(line, [reference]).score / 100
    assert sentence_chrf(one) == sacrebleu.sentence_chrf(line, [reference]).score / 100
    assert sentence_bleu(Attempt("", reference, reference, "", "d")) == pytest.approx(1)
