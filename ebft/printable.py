"""Text of others made safe to show: names of files, values of a recipe, columns, labels.

Such a text may hold escape sequences that a terminal obeys, line ends that begin a line of their
own, or marks that turn the order of letters round. What shows text passes it through `printable`:
errors (`ebft.errors`), the terminal and the log (`ebft.console`), and reports.
"""

from __future__ import annotations


def printable(text: str, *, keep: str = "") -> str:
    r"""The text with a visible escape in place of each letter that is not printable.

    Those are the letters that `repr` escapes too. `keep` are letters that stay as they are.

    >>> printable("a\x1b[31m\n\u202e")
    'a\\x1b[31m\\n\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else repr(letter)[1:-1] for letter in text
    )


def shortened(line: str, most: int) -> str:
    """A line of at most `most` letters: of a longer one the beginning and the end, which say what
    is wrong with a value and what to do about it."""
    if len(line) <= most:
        return line
    head = most * 2 // 3
    return f"{line[:head]} … {line[len(line) - (most - head - 3) :]}"
