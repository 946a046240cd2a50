"""Finds the end of a function that a prompt begins and a model completes."""

from __future__ import annotations


def function_body(text: str) -> str:
    """Returns the text before its first line that is not indented.

    Lines within a triple-quoted string, and lines that begin with a closing bracket, do not count.
    Models that were not trained to stop continue with another function, a call or prose. Benchmarks
    of code generation cut this off before they run the function, and so does this function.
    """
    first, *lines = text.split("\n")
    body = [first]
    for line in lines:
        unindented = line and not line[0].isspace() and line[0] not in ")]}"
        if unindented and not inside_string("\n".join(body)):
            break
        body.append(line)
    return "\n".join(body)


def inside_string(code: str) -> bool:
    """Whether a triple-quoted string is open at the end of `code`."""
    return any(code.count(quotes) % 2 for quotes in ('"""', "'''"))
