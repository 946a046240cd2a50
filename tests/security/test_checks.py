"""Programs that are written to pass their tests without computing what these ask for."""

import pytest

from ebft.sandbox import Check, SandboxOptions, run_in_two_processes
from ebft.sandbox.run import Outcome

SHORT = SandboxOptions(cpu_seconds=2, wall_seconds=30)
ASSERTION = "assert f(1) == 2\nassert f(2) == 3"
UNITTEST = """
import unittest
class Test(unittest.TestCase):
    def test(self):
        self.assertEqual(f(1), 2)
unittest.main()
"""
EQUAL = "    __eq__ = __le__ = __ge__ = __contains__ = lambda self, other: True\n"
PASSES_OVER = "class Any:\n    __enter__ = print\n    def __exit__(self, *error): return True\n"
UP = """
    frame = sys._getframe()
    while frame:
        frame.f_globals.update(f=lambda x: x + 1)
        frame = frame.f_back
"""


def run(program: str, tests: str, context: str = "", reference: str = "") -> Outcome:
    return run_in_two_processes(context + program, Check(tests, context, reference), SHORT)


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        (f"class Any:\n{EQUAL}def f(x): return Any()", ASSERTION),
        (f"class Any:\n{EQUAL}def f(x): return Any()", UNITTEST),
        (f"class Any:\n{EQUAL}def f(x): return Any()", "assert abs(f(1) - 2) < 1e-6"),
        (f"class Any:\n{EQUAL}def f(x): return Any()", "assert 2 in f(1)"),
        (f"class Any(int):\n{EQUAL}def f(x): return Any()", ASSERTION),
        (f"class Any(list):\n{EQUAL}def f(x): return [Any()]", "assert f(1) == [[2]]"),
        ("def f(x): return NotImplemented", ASSERTION),
        (f"import sys\ndef f(x):\n{UP}", ASSERTION),
        ("import sys\nsys.settrace(lambda *a: 1 / 0)\ndef f(x): return 0", ASSERTION),
        ("import builtins\nbuiltins.AssertionError = None\ndef f(x): return 0", ASSERTION),
        ("import unittest\nunittest.TestCase.assertEqual = print\ndef f(x): return 0", UNITTEST),
        ("import os\ndef f(x): os._exit(0)", f"try:\n    {ASSERTION[:17]}\nexcept Exception: pass"),
        ("import sys\ndef f(x): sys.exit(0)", ASSERTION),
        ("def f(x): raise SystemExit", UNITTEST),
        ("def tuple(x): return 0\ndef f(x): return 0", "assert tuple(f(1)) == tuple([2])"),
        ("def isclose(a, b): return True\ndef f(x): return 0", "assert isclose(f(1), 2)"),
        ("def f(x): raise StopIteration", "for y in map(f, [1, 2]): assert y in (2, 3)"),
        (f"{PASSES_OVER}def f(x): return Any()", "with f(1) as x: assert x == 2"),
        ("import unittest\ndef f(x): raise unittest.SkipTest", UNITTEST),
        ("import unittest\ndef f(x): raise unittest.case._ShouldStop", UNITTEST),
        ("import types\ndef f(x): return types.ModuleType('unittest.__main__')", ASSERTION),
        ("import types\ndef f(x): return types.ModuleType('idlelib.idle')", ASSERTION),
    ],
)  # fmt: skip
def test_a_program_does_not_decide_what_its_test_says(program, tests):
    imports = "from math import (\n    isclose,\n)\ndef f(x): return x + 1"
    assert not run(program, tests, reference=imports).passed


def test_what_the_prompt_defines_is_what_the_test_calls():
    context = "def right(x): return x + 1\n\ndef f(x):\n    '''The next number.'''\n"
    tests = "assert f(1) == right(1)\nassert f(5) == right(5)"
    assert run("    return x + 1", tests, context).passed
    assert not run("    return 0\ndef right(x): return 0", tests, context).passed


OBJECTS = """
def f(x):
    import sys
    frame = sys._getframe()
    while "self" not in frame.f_locals:
        frame = frame.f_back
    peer = frame.f_locals["self"]
    {do}
    return 0
"""


@pytest.mark.parametrize(
    "do",
    [
        "return peer.ask('call', type, 'Any', (), {'__eq__': lambda *others: True})()",
        "x.__globals__['__builtins__']['exec']('import __main__; __main__.f = lambda x: x + 1')",
        "return peer.ask('name', 'f')",
        "peer._write(b'y9:')",
        "peer._write(b'x1:s3:abc')",
        "peer._write(b'1' * 10**6)",
    ],
)
def test_a_program_gets_at_nothing_of_the_check_but_what_it_is_given(do):
    tests = "def given(): pass\nassert f(given) == 0\nassert f(1) == 2"
    outcome = run(OBJECTS.format(do=do), tests)
    assert not outcome.passed
    assert outcome.error


def test_a_program_that_never_answers_ends_with_its_time():
    outcome = run("def f(x):\n    while True: pass", ASSERTION)
    assert "ProgramEnded" in outcome.error
