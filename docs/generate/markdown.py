"""Pieces of Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.M)
INDENTED = re.compile(r"(?:^ {4}.*\n?)+", re.M)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; empty if there are no rows."""
    lines = [_line(row) for row in rows]
    if not lines:
        return ""
    return "\n".join([_line(header), _line(["---"] * len(header)), *lines]) + "\n"


def code(text: str) -> str:
    """`text` as inline code, nothing if it is empty."""
    return f"`{text}`" if text else ""


def block(text: str, language: str = "text") -> str:
    """`text` as a code block."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def docstring(thing: object) -> str:
    """The docstring as Markdown: its examples and what it indents become blocks of Python."""
    text = inspect.getdoc(thing) or ""
    text = EXAMPLE.sub(lambda match: block(match[0], "pycon"), text)
    return INDENTED.sub(lambda match: block(inspect.cleandoc(match[0]), "python"), text)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Bars would end the cell, except those in code."""
    parts = text.split("`")
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
    return "`".join(parts)
