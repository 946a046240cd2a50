"""Notebooks: run from top to bottom, and made into pages of the site.

`python -m docs.generate.notebooks` runs every notebook and keeps what it prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
KEPT = ("kernelspec", "language_info")


def notebooks() -> list[Path]:
    """Every notebook of docs/."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """The notebook as it is in the file."""
    return cast(NotebookNode, nbformat.read(path, as_version=4))


def run(path: Path) -> NotebookNode:
    """The notebook with the output of running it now, warnings left out.

    Raises `nbclient.exceptions.CellExecutionError` at the first cell that fails.
    """
    notebook = read(path)
    NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
    notebook.metadata = {key: notebook.metadata[key] for key in KEPT}
    notebook.metadata.language_info = {"name": "python"}  # the version differs between machines
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [it for it in cell.outputs if it.get("name") != "stderr"]
    return notebook


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook as Markdown, and its pictures by their names."""
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(read(path), resources={"unique_key": path.stem})
    return text, resources["outputs"]


def main() -> None:
    """Runs every notebook in place."""
    for path in notebooks():
        nbformat.write(run(path), path)


if __name__ == "__main__":
    main()
