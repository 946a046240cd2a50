"""Where a function that a prompt begins and a model goes on with is at its end."""

from __future__ import annotations


def function_body(text: str) -> str:
    """The text up to its first line that is not indented, aside from lines within a string of many
    lines and from brackets that are closed there.

    Models that were not taught where to stop go on with another function, a call or prose; the
    benchmarks of code generation cut that off before they run the function, and so does this.
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
    """Whether a string of three quotes is open at the end of some lines of Python."""
    return any(code.count(quotes) % 2 for quotes in ('"""', "'''"))
