"""Makes untrusted text safe to show: names of files, values of a recipe, columns, labels.

Such a text may contain escape sequences, line ends, or marks that reverse the order of characters.
Errors (`ebft.errors`), the terminal and the log (`ebft.console`), and reports pass all text through
`printable`.
"""

from __future__ import annotations

import re

ESCAPED = re.compile(r"[\\`*\[\]]|(?<!\w)_|_(?!\w)")
"""Characters with a meaning in a line of Markdown; an underscore inside a word has none."""
ENTITIES = {
    "&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "~": "&#126;", "$": "&#36;",
}  # fmt: skip
"""Characters that some dialects of Markdown do not escape by a backslash."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Returns the text with a visible escape for each character that is not printable.

    These are the characters that `repr` escapes. Characters in `keep` are not escaped.

    >>> printable("a\x1b[31m\n\u202e")
    'a\\x1b[31m\\n\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in text
    )


def cut_short(text: str, most: int) -> str:
    """The beginning of a text, of at most `most` letters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shortened(line: str, most: int) -> str:
    """Returns a line of at most `most` characters: of a longer line the beginning and the end,
    which name the mistake and the fix."""
    if len(line) <= most:
        return line
    head = most * 2 // 3
    return f"{line[:head]} … {line[len(line) - (most - head - 3) :]}"


def plain_markdown(text: str) -> str:
    r"""Escapes a text for a line of Markdown, so that it makes no HTML, links, emphasis or cells.

    >>> plain_markdown("[layer 8] a_b <b> x|y")
    '\\[layer 8\\] a_b &lt;b&gt; x&#124;y'
    """
    escaped = ESCAPED.sub(r"\\\g<0>", printable(text))
    return "".join(ENTITIES.get(letter, letter) for letter in escaped)
