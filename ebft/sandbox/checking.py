"""The two processes of `apart`: one serves a program, one runs its check.

The text of this file, after those of `values.py` and `calls.py`, runs in both.
"""

from __future__ import annotations

import builtins
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from ebft.sandbox.calls import Peer, UnusableCheck
    from ebft.sandbox.values import MISSING

READY = b"\1"


def serve(channel: int, program: str) -> None:
    """Runs the program, reports that it has ended, and answers calls until the check has ended."""
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    exec(compile(program, "program.py", "exec", dont_inherit=True), module.__dict__)
    os.write(channel, READY)
    sys.stdout = io.TextIOWrapper(io.BytesIO(), "utf-8", "replace", write_through=True)
    Peer(channel, module.__dict__).serve()


def run_check(channel: int | None, check: str, helpers: list[str], tested: list[str]) -> None:
    """Runs the check with the program at the channel, or with an empty program without a channel.

    `helpers` are run before it; those that raise are skipped. Names that the check uses and that
    are not defined otherwise come from the program. So do the names `tested`, even if they are
    builtins or defined by helpers. Raises the error of the check, or `UnusableCheck`.
    """
    module = type(sys)("__main__")
    sys.modules["__main__"], sys.argv = module, ["check"]
    space = module.__dict__
    try:
        code = compile(check, "program.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise UnusableCheck(error) from None
    for helper in helpers:
        try:
            exec(compile(helper, "helper.py", "exec", dont_inherit=True), space)
        except (Exception, SystemExit):  # the prompt is not a program
            continue
    classes = [name for name, value in space.items() if _is_own_class(value)]
    for name in [*tested, *classes]:
        space.pop(name, None)
    peer = None if channel is None else Peer(channel, None)
    for name in names_in(code):
        if name in tested or not (name in space or hasattr(builtins, name)):
            value = _nothing if peer is None else peer.ask("name", name)
            if value is not MISSING:
                space[name] = value
    before = dict(space)
    try:
        if not _leaves(code, space):
            run_tests([value for name, value in space.items() if before.get(name) is not value])
    except ImportError as error:
        if hasattr(error, "from_program"):
            raise
        raise UnusableCheck(error) from None


def _leaves(code: CodeType, space: dict[str, Any]) -> bool:
    """Runs the check, and returns whether it calls sys.exit(), as unittest.main() does."""
    try:
        exec(code, space)
    except SystemExit as end:
        if end.code:
            raise AssertionError(f"the check left with status {end.code}") from None
        return True
    return False


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Every function of an empty program."""


def _is_own_class(value: Any) -> bool:
    return isinstance(value, type) and value.__module__ == "__main__"


def names_in(code: CodeType) -> set[str]:
    """Returns the names of globals and attributes in the code and in its nested code, and strings
    that are names."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            found |= names_in(constant)
        elif isinstance(constant, str) and constant.isidentifier():
            found.add(constant)
    return found


def run_tests(defined: list[Any]) -> None:
    """Runs the tests among the check's definitions, like a test runner.

    These are unittest's cases, functions without parameters whose names begin with `test`, and such
    methods of classes whose names begin with `Test`, like pytest.
    """
    functions: list[Any] = [one for one in defined if type(one) is type(run_tests)]
    classes = [one for one in defined if _is_own_class(one)]
    if "unittest" in sys.modules:
        import unittest

        cases = [one for one in classes if issubclass(one, unittest.TestCase)]
        load = unittest.defaultTestLoader.loadTestsFromTestCase
        result = unittest.TestResult()
        unittest.TestSuite(map(load, cases)).run(result)
        if not result.wasSuccessful():
            raise AssertionError("unittest: a test failed")
        classes = [one for one in classes if one not in cases]
    named = {function.__name__: function for function in functions}
    _set_up(named.get("setup_module"), None)
    for function in functions:
        if function.__name__.startswith("test") and not _needs_arguments(function):
            _set_up(named.get("setup_function"), function)
            function()
    for one in classes:
        if one.__name__.startswith("Test"):
            _run_methods(one)


def _run_methods(kind: type) -> None:
    """Those of the class, and of classes that it derives from."""
    _set_up(getattr(kind, "setup_class", None), kind)
    for name in dir(kind):
        if name.startswith("test") and hasattr(getattr(kind, name), "__code__"):
            instance = kind()
            method = getattr(instance, name)
            _set_up(getattr(instance, "setup_method", None), method)
            if not _needs_arguments(method):
                method()


def _set_up(function: Any, of: Any) -> None:
    """pytest's: what is set up is given to a function that has a parameter for it."""
    if function is not None:
        function(*[of] * _needs_arguments(function))


def _needs_arguments(function: Any) -> bool:
    code, given = function.__code__, int(hasattr(function, "__self__"))
    only_by_name: int = code.co_kwonlyargcount - len(function.__kwdefaults__ or ())
    by_place: int = code.co_argcount - len(function.__defaults__ or ())
    return by_place > given or only_by_name > 0
