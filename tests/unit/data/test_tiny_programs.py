import random

import pytest

from ebft.data.tiny_programs.program import draw_input
from ebft.data.tiny_programs.source import PAIRS, TinyPrograms, as_example, draw_program, is_unseen
from ebft.data.tiny_programs.steps import STEPS
from ebft.sandbox import SandboxOptions, run_python
from ebft.verifiers.functions import function_body

SPLITS = TinyPrograms(train=1500, held_out=150, out_of_distribution=150)()
PARTS = {"train": SPLITS.train, "held_out": SPLITS.held_out,
            "out_of_distribution": SPLITS.out_of_distribution}  # fmt: skip


def steps(example):
    """The names of the steps that a program is made of, in no order."""
    return frozenset(example.name.removeprefix("tiny_programs/").split(":")[0].split("+"))


def passes(example, body):
    return run_python(f"{example.prompt}{body}\n\n{example.check}\n", SandboxOptions()).passed


def chain(example):
    return [step for step in STEPS if step.name in steps(example)]


def test_pairs_of_steps_that_are_out_of_distribution_are_never_in_train():
    trained = {steps(example) for example in SPLITS.train}
    apart = {steps(example) for example in SPLITS.out_of_distribution}
    assert {len(names) for names in apart} == {2}
    assert not trained & apart
    assert all(is_unseen(chain(example)) for example in SPLITS.out_of_distribution)
    # Nor with another seed: which pairs those are does not depend on what is drawn.
    other = TinyPrograms(train=800, held_out=1, out_of_distribution=1, seed=7)()
    assert not any(is_unseen(chain(e)) for e in other.train if len(steps(e)) == 2)


def test_every_step_is_trained_on():
    assert {name for e in SPLITS.train for name in steps(e)} == {step.name for step in STEPS}
    unseen = {frozenset(step.name for step in pair) for pair in PAIRS if is_unseen(pair)}
    assert 20 < len(unseen) < 60


def behaviour(example):
    """What a program computes from texts and numbers that are not those it was divided by."""
    space, found = {}, []
    exec(example.prompt + example.completion, space)
    for value in BEHAVIOUR_INPUTS:
        try:
            found.append(repr(space["f"](value)))
        except (ValueError, TypeError, AttributeError):
            found.append("fails")
    return tuple(found)


BEHAVIOUR_INPUTS = [
    draw_input(kind, random.Random(i)) for kind in ("text", "numbers") for i in range(200)
]


def test_no_program_in_train_computes_what_one_that_is_held_out_does():
    other_seed = TinyPrograms(train=800, held_out=1, out_of_distribution=1, seed=3)().train
    trained = {behaviour(example) for example in (*SPLITS.train, *other_seed)}
    for examples in (SPLITS.held_out, SPLITS.out_of_distribution):
        assert not trained & {behaviour(example) for example in examples}


def test_prompts_are_distinct_and_so_are_most_programs():
    examples = [example for part in PARTS.values() for example in part]
    assert len({example.prompt for example in examples}) == len(examples)
    assert len({example.name for example in examples}) == len(examples)
    assert len({behaviour(example) for example in SPLITS.train}) > len(SPLITS.train) / 3


@pytest.mark.parametrize("split", PARTS)
def test_the_reference_passes_and_wrong_programs_do_not(split):
    for example in PARTS[split][:4]:
        argument = example.prompt.split("(")[1].split(")")[0]
        assert passes(example, example.completion)
        assert not passes(example, " None")
        assert not passes(example, f" {argument}")


def test_neither_step_of_two_passes_alone():
    rng = random.Random(0)
    for pair in rng.sample(PAIRS, 100):
        program = draw_program(pair, rng)
        example = None if program.is_degenerate else as_example(program, "x", rng)
        if example is None:
            continue
        for passing, tried in ((True, program), *((False, other) for other in program.lesser)):
            space = {"f": eval(f"lambda {tried.argument}: {tried.expression}")}
            if passing:
                exec(example.check, space)
            else:
                with pytest.raises((AssertionError, TypeError, AttributeError, ValueError)):
                    exec(example.check, space)


def test_any_program_that_computes_the_right_results_passes():
    example = next(e for e in SPLITS.train if e.name.startswith("tiny_programs/multiply:"))
    factor = example.completion.split("* ")[1].split(" ")[0]
    argument = example.prompt.split("(")[1].split(")")[0]
    otherwise = f" list(map(lambda it: it + {int(factor) - 1} * it, {argument}))"
    assert otherwise != example.completion
    assert passes(example, otherwise)
    assert not passes(example, otherwise.replace("it +", "it -"))


def test_the_shown_call_is_right_and_not_among_the_tests():
    for example in SPLITS.train[:50]:
        call, shown = (line.strip() for line in example.prompt.splitlines()[3:5])
        space = {}
        exec(example.prompt + example.completion, space)
        assert repr(eval(call.removeprefix(">>> "), space)) == shown
        assert call.removeprefix(">>> ") not in example.check


def test_the_same_seed_gives_the_same_programs():
    small = TinyPrograms(train=20, held_out=5, out_of_distribution=5)
    assert small() == small()
    assert (
        small().train != TinyPrograms(train=20, held_out=5, out_of_distribution=5, seed=1)().train
    )


def test_a_body_ends_where_the_next_line_is_not_indented():
    body = "\n    if x:\n        return 1\n\n    return 2"
    for rest in ("\n\ndef g(x):\n    return 3", "\n```\nText", "\nprint(f(1))", "\n# Example"):
        assert function_body(body + rest).rstrip() == body
    assert function_body("    return 1\nreturn 2") == "    return 1"
    brackets = "    return sum([\n        x for x in y\n])"
    assert function_body(brackets + "\nprint(1)") == brackets
    assert function_body("") == ""


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_a_string_of_many_lines_belongs_to_its_function(quotes):
    body = f"\n    s = {quotes}\nx\n{quotes}\n    return s"
    assert function_body(body + "\nprint(1)") == body
