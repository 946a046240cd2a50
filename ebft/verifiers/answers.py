"""The program in what a model wrote: without the fences and the prose around it.

All benchmarks of programs share it, so that a model is not judged by how it closes its answer.
"""

from __future__ import annotations

FENCE = "```"


def program_in(answer: str) -> str:
    """Returns the first fenced block of an answer; the whole answer if it has none.

    A block that is not closed ends with the answer. An answer may begin within a block, as a
    completion of a prompt that opened one does: a fence without a language then closes it.
    """
    before, block, is_fenced = _split(answer)
    return block if is_fenced else before


def continuation_in(rollout: str) -> str:
    """Returns the code at the beginning of a rollout that continues a program.

    Models close a right body with a fence and go on in prose: that is cut off. If nothing stands
    before the first fence, the rollout is an answer, and the block is returned.
    """
    before, block, is_fenced = _split(rollout)
    return block if is_fenced and not before.strip() else before


def inside_string(code: str) -> bool:
    """Whether a triple-quoted string is open at the end of `code`."""
    return any(code.count(quotes) % 2 for quotes in ('"""', "'''"))


def _split(text: str) -> tuple[str, str, bool]:
    """Returns the text before the first fence, the block after it, and whether the fence opens the
    block.

    A fence with a language opens one, and so does a fence with nothing before it. One without a
    language closes the text before it, unless the number of fences is even, so that they are pairs.
    A fence in a triple-quoted string is part of the program.
    """
    lines = text.splitlines(keepends=True)
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith(FENCE)]
    for first in fences:
        before = "".join(lines[:first])
        if inside_string(before):
            continue
        language = lines[first].strip().removeprefix(FENCE)
        opens = bool(language or not before.strip() or len(fences) % 2 == 0)
        return before, _block(lines[first + 1 :]), opens
    return text, "", False


def _block(lines: list[str]) -> str:
    """Returns the lines before the fence that closes them."""
    for number, line in enumerate(lines):
        if line.lstrip().startswith(FENCE) and not inside_string("".join(lines[:number])):
            return "".join(lines[:number])
    return "".join(lines)
