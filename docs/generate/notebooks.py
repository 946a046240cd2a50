"""Notebooks: run from top to bottom, and made into pages of the site.

`python -m docs.generate.notebooks` runs every notebook and keeps what it prints; with names, only
those.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
KEPT = ("kernelspec", "language_info")
PARAMETERS = "parameters"
WIDGET = "application/vnd.jupyter.widget-view+json"


def notebooks() -> list[Path]:
    """Every notebook of docs/."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """The notebook as it is in the file."""
    return cast(NotebookNode, nbformat.read(path, as_version=4))


def run(path: Path, folder: Path, parameters: str | None = None) -> NotebookNode:
    """The notebook with the output of running it now in `folder`, warnings left out.

    `parameters` is in place of the cell with the tag `parameters`. Raises
    `nbclient.exceptions.CellExecutionError` at the first cell that fails.
    """
    notebook = read(path)
    if parameters is not None:
        (cell,) = [cell for cell in notebook.cells if is_parameters(cell)]
        cell.source = parameters
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=1800, resources={"metadata": {"path": folder}}
    )
    client.execute()
    notebook.metadata = {key: notebook.metadata[key] for key in KEPT}
    notebook.metadata.language_info = {"name": "python"}  # the version differs between machines
    for cell in notebook.cells:
        cell.metadata = {"tags": [PARAMETERS]} if is_parameters(cell) else {}
        if cell.cell_type == "code":
            cell.outputs = [it for it in cell.outputs if not _is_passing(it)]
    return notebook


def is_parameters(cell: NotebookNode) -> bool:
    """Whether a test puts smaller values in place of the cell's."""
    return PARAMETERS in cell.metadata.get("tags", [])


def _is_passing(output: NotebookNode) -> bool:
    """Whether it is a warning, a log or a progress bar, which nobody reads afterwards."""
    return output.get("name") == "stderr" or WIDGET in output.get("data", {})


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook as Markdown, and its pictures by their names."""
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(read(path), resources={"unique_key": path.stem})
    return text, resources["outputs"]


def main() -> None:
    """Runs notebooks in place: those that are named, or all."""
    named = sys.argv[1:]
    for path in notebooks():
        if not named or path.stem in named:
            with TemporaryDirectory() as folder:
                nbformat.write(run(path, Path(folder)), path)


if __name__ == "__main__":
    main()
