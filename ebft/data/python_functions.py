"""Data source `python_functions`: signature and docstring → body."""

from __future__ import annotations

import ast
import io
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ebft.data.copies import without_near_copies
from ebft.data.python_files import PythonFiles
from ebft.data.split import without_copies
from ebft.errors import UserError
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits

Function = ast.FunctionDef | ast.AsyncFunctionDef


class PythonFunctions(Part):
    """Every documented function under a folder: its signature and docstring are the prompt, its
    body is the completion (question and answer, as in the paper's structured code).

    Whole files are held out. Functions that are also in a held-out file, or share most of their
    lines with one there, are not trained on.
    """

    path: Path | None = Field(None, description="a folder; null: the standard library's sources")
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of the files to hold out")

    out_of_distribution: tuple[str, ...] = Field(
        (), description="packages never trained on, as for python_files"
    )

    def __call__(self) -> Splits:
        """Raises `UserError` naming `data.path` if there is nothing to read."""
        files = PythonFiles(
            path=self.path, held_out=self.held_out, out_of_distribution=self.out_of_distribution
        )()
        train, held_out, apart = (
            [function for file in part for function in documented_functions(file)]
            for part in (files.train, files.held_out, files.out_of_distribution)
        )
        train = without_near_copies(without_copies(train, of=()), of=[*held_out, *apart])
        for name, examples in (("train", train), ("held-out", held_out)):
            if not examples:
                raise UserError(
                    f"data.path = {self.path}: no function with a docstring in the {name} files; "
                    "give a folder with more of them"
                )
        return Splits(train, without_copies(held_out, of=()), without_copies(apart, of=held_out))


def documented_functions(file: Example) -> Iterator[Example]:
    """Yields the functions and methods of a source file that have a docstring and a body."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # invalid escapes in other code
        try:
            tree = ast.parse(file.completion)
        # A template, code for another version of Python, or a deeply nested table.
        except (SyntaxError, RecursionError, MemoryError):
            return
    lines = python_lines(file.completion)
    for node in ast.walk(tree):
        if isinstance(node, Function) and ast.get_docstring(node) and len(node.body) > 1:
            docstring, body = node.body[0].end_lineno, node.body[1].lineno
            if docstring is None or node.end_lineno is None or docstring >= body:
                continue  # `"""Doc."""; return 1`, on one line
            source = textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))
            prompt_lines = docstring - node.lineno + 1
            parts = python_lines(source)
            yield Example(
                name=f"{file.name}:{node.lineno}",
                prompt="".join(parts[:prompt_lines]),
                completion="".join(parts[prompt_lines:]),
                cluster=file.name,
            )


def python_lines(source: str) -> list[str]:
    """Returns lines as Python's parser numbers them: a form feed does not end a line."""
    return io.StringIO(source, newline=None).readlines()
