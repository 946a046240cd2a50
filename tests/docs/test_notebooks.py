"""Each notebook runs, and prints what it says that it prints."""

import pytest

from docs.generate.notebooks import notebooks, read, run


def printed(notebook):
    return [
        # One text a cell: what the kernel prints arrives in pieces of any size.
        "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_it_prints_what_it_says(path):
    kept = read(path)
    assert any(printed(kept)), "make notebooks"
    assert printed(run(path)) == printed(kept), "if it is right so: make notebooks"
    assert path.stat().st_size < 100_000
