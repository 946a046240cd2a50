"""Tests of a program that run in another process than it: right programs pass, as in one."""

import pytest

from ebft.sandbox import Check, SandboxOptions, run_in_two_processes, run_without_program
from tests.unit.sandbox.test_sandbox import nothing_is_left

__all__ = ["nothing_is_left"]
SHORT = SandboxOptions(cpu_seconds=2, wall_seconds=30)
UNITTEST = """
import unittest
class T(unittest.TestCase):
    def test(self): self.assertEqual(f(), 1)
"""


def run(program, tests, reference=""):
    return run_in_two_processes(program, Check(tests, reference=reference), SHORT)


RIGHT = {
    "plain values travel": (
        """
import collections
def same(x): return x
def more(): return collections.Counter("aab"), collections.OrderedDict(a=1)
""",
        r"""
import collections, datetime, decimal, fractions, pathlib
for x in (
    None, True, -3**999, 1.5, 2j, "é\ud83d", b"\0", bytearray(b"x"), [(1, [])], {1: {"a"}},
    frozenset([()]), range(3), slice(1), decimal.Decimal("1.50"), fractions.Fraction(1, 3),
    datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.timezone.utc), datetime.timedelta(1),
    collections.deque([1], 2), pathlib.Path("a/b"),
):
    assert same(x) == x and type(same(x)) is type(x), x
assert str(same(float("nan"))) == "nan" and same(int) is int and same(...) is ...
assert more() == ({"a": 2, "b": 1}, {"a": 1})
""",
    ),
    "arguments are changed in place": (
        """
def turn(m, s=None, d=None):
    for row in m: row.reverse()
    s.add(5)
    d.clear()
""",
        """
m, s, d = [[1, 2], [3]], {1}, {1: 2}
turn(m, s, d=d)
assert (m, s, d) == ([[2, 1], [3]], {1, 5}, {})
""",
    ),
    "the program has classes": (
        """
class Stack(list):
    def push(self, x): self.append(x)
    size = property(len)
class V:
    def __init__(self, x): self.x = x
    def __add__(self, other): return V(self.x + other.x)
    def __eq__(self, other): return self.x == other.x
    def __hash__(self): return self.x
    def __round__(self, digits): return round(self.x, digits)
    def __reversed__(self): return iter([self.x])
    def __format__(self, how): return f"{how}{self.x}"
""",
        """
s = Stack()
s.push(4)
assert s.size == len(s) == 1 and s[0] == 4 and s.pop() == 4
assert isinstance(s, Stack) and not isinstance(1, Stack) and not s and Stack([1]) == [1]
assert V(1) + V(2) == V(3) != V(4) and len({V(1), V(1)}) == 1
s.x = 1
assert s.x == 1
assert round(V(1.26), 1) == 1.3 and list(reversed(V(0))) == [0] and f"{V(2):x}" == "x2"
""",
    ),
    "a generator": (
        "def f(n):\n    while n: n -= 1; yield n",
        "g = f(3)\nassert next(g) == 2 and list(g) == [1, 0] and next(g, 9) == 9",
    ),
    "the check has a class": (
        """
def total(node): return node.value + total(node.next) if node else 0
def change(node): node.value = 7; return node
""",
        """
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
node = Node(1, Node(2))
assert total(node) == 3
assert change(node) is node and node.value == 7
""",
    ),
    "the check has a function": (
        "def f(g, xs): return [g(x) for x in xs]",
        "assert f(lambda x: x * x, [1, 2]) == [1, 4]",
    ),
    "errors": (
        """
class A(KeyError): pass
class B(A):
    def __init__(self, x, y): super().__init__(x)
def f(error): raise error
def g(): raise B("x", 2)
""",
        """
import unittest
class T(unittest.TestCase):
    def test(self):
        with self.assertRaisesRegex(ValueError, "y"): f(ValueError("y"))
        with self.assertRaises(A): g()
        with self.assertRaises(LookupError): g()
if __name__ == "__main__":
    unittest.main()
""",
    ),
    "errors of the standard library": (
        "import json, statistics\ndef f(s): return json.loads(s)\ndef g(s): statistics.mean(s)",
        """
import json, statistics, unittest
class T(unittest.TestCase):
    def test(self):
        with self.assertRaises(json.JSONDecodeError) as told: f("{")
        self.assertEqual(told.exception.pos, 1)
        with self.assertRaises(statistics.StatisticsError): g([])
""",
    ),
    "what an error says": (
        """
class E(Exception):
    def __init__(self, code):
        super().__init__("bad")
        self.code = code
def f(): raise E(5)
def g(): raise FileNotFoundError(2, "no", "x")
""",
        """
try: f()
except E as error: assert (str(error), error.code) == ("bad", 5)
else: raise AssertionError
try: g()
except FileNotFoundError as error: assert error.filename == "x"
else: raise AssertionError
""",
    ),
    "the check's own errors come back": (
        "def f(g): g()",
        """
class E(Exception): pass
def g(): raise E("x")
try: f(g)
except E as error: assert str(error) == "x"
else: raise AssertionError
""",
    ),
    "a context learns of an error": (
        """
class Undone:
    seen = None
    def __enter__(self): return self
    def __exit__(self, kind, error, _): self.seen = kind.__name__, error.args
""",
        """
undone = Undone()
try:
    with undone: raise ValueError("x")
except ValueError: pass
assert undone.seen == ("ValueError", ("x",))
""",
    ),
    "unittest without main": ("def f(): return 1", UNITTEST),
    "unittest that goes on": ("def f(): return 1", UNITTEST + "unittest.main(exit=False)"),
    "pytest": (
        "def f(): return 1",
        """
def test_f(): assert f() == 1
class TestF:
    def setup_method(self): self.x = 1
    def test_f(self): assert f() == self.x
""",
    ),
    "pytest's set-up": (
        "def f(): return 1",
        """
x = []
def setup_module(): x.append(1)
def setup_function(function): x.append(function.__name__)
def test_f(): assert [f(), "test_f"] == x
class Base:
    def setup_class(cls): cls.y = 1
    setup_class = classmethod(setup_class)
    def setup_method(self, method): self.name = method.__name__
    def test_f(self): assert (f(), self.name) == (self.y, "test_f")
    @staticmethod
    def test_g(): assert f() == 1
class TestF(Base): pass
""",
    ),
    "a test that the check calls itself": (
        "def f(): return 1",
        "def test(candidate): assert candidate() == 1\ntest(f)",
    ),
    "a function by its name": ("def f(): return 1", "assert globals()['f']() == 1"),
    "output": (
        "def f(): print('é')",
        r"""
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as out: f()
assert out.getvalue() == "é\n"
""",
    ),
    "a coroutine": ("async def f(x): return x", "import asyncio\nassert asyncio.run(f(3)) == 3"),
}
"""Programs, and tests that they pass."""


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_pass(name):
    assert run(*RIGHT[name]).error == ""


def test_a_builtin_that_the_reference_defines_anew_is_the_programs():
    right, tests = "def sum(a, b): return a + b", "assert sum(1, 2) == 3"
    assert run(right, tests, reference=right).passed
    assert not run("def sum(a, b): return a", tests, reference=right).passed


WRONG = "def f(): return 2"


@pytest.mark.parametrize(
    ("program", "tests", "why"),
    [
        ("def f(:", "f(1)", "SyntaxError"),
        ("1 / 0", "f(1)", "ZeroDivisionError in line 1"),
        ("x = 1", "f(1)", "NameError"),
        (WRONG, "def test_f(): assert f() == 1", "AssertionError"),
        (WRONG, "class TestF:\n    def test_f(self): assert f() == 1", "AssertionError"),
        (
            WRONG,
            "class B:\n    def test_f(self): assert f() == 1\nclass TestF(B): pass",
            "AssertionError",
        ),
        (WRONG, UNITTEST, "a test failed"),
        (WRONG, UNITTEST + "unittest.main()", "the check left with status"),
        (WRONG, UNITTEST + "unittest.main(exit=False)", "a test failed"),
        (WRONG, "import pytest", "UnusableCheck in line"),
        (WRONG, "def test_f(): import pytest", "UnusableCheck in line"),
        ("def f(): import pytest", "def test_f(): f()", "ModuleNotFoundError in line"),
        (WRONG, "assert (", "UnusableCheck in line"),
        ("class F: pass", "class G(F): pass", "UnusableCheck in line"),
    ],
)
def test_others_do_not(program, tests, why):
    outcome = run(program, tests)
    assert not outcome.passed
    assert why in outcome.error


@pytest.mark.parametrize(
    "tests", ["\n", "x = 1", "def test_f(g): assert g() == 1", "f(1)", "assert f() is None"]
)
def test_an_empty_program_passes_what_tests_nothing(tests):
    assert run_without_program(Check(tests), SHORT).passed


@pytest.mark.parametrize(
    "tests", ["assert f(1) == 2", "def test_f(): assert f() == 1", UNITTEST, "assert sum(f()) == 1"]
)
def test_and_nothing_else(tests):
    assert not run_without_program(Check(tests), SHORT).passed
