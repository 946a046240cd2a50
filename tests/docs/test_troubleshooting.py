"""Each message that docs/troubleshooting.md explains is one that the code can print."""

import ast
import re

import pytest

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = [*ROOT.glob("ebft/**/*.py"), *ROOT.glob("plugins/*/ebft_*/**/*.py")]
MESSAGES = [line for it in blocks(PAGE) if it.language == "text" for line in it.text.splitlines()]
HOLE = "…"


def texts(source):
    """Every string of a file but docstrings, with HOLE for what a format string fills in."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in alone:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = [it.value if isinstance(it, ast.Constant) else HOLE for it in node.values]
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def printed():
    return [text for source in SOURCES for text in texts(source)]


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_says_it(message, printed):
    """Its fixed words stand in one string of the code, in that order."""
    pieces = [piece for piece in re.split(r"\s*…\s*|(?<=[:;]) ", message) if piece.strip(" :;()=")]
    assert sum(map(len, pieces)) >= 10, "a message of holes would match anything"
    wanted = re.compile(".*?".join(map(re.escape, pieces)), re.S)
    assert any(wanted.search(text) for text in printed)


def test_it_explains_many():
    assert len(MESSAGES) > 30
