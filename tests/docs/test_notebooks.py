"""Each notebook runs, and prints what it says; one of a large model runs with a tiny one."""

import pytest

from docs.generate.notebooks import is_parameters, notebooks, read, run
from tests.chat import write_chat_model


def printed(notebook):
    return [
        # One text a cell: what the kernel prints arrives in pieces of any size.
        "".join(output.text for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def large(path):
    return any(map(is_parameters, read(path).cells))


@pytest.mark.parametrize(
    "path", [it for it in notebooks() if not large(it)], ids=lambda path: path.stem
)
def test_it_prints_what_it_says(path, tmp_path):
    kept = read(path)
    assert any(printed(kept)), "make notebooks"
    assert printed(run(path, tmp_path)) == printed(kept), "if it is right so: make notebooks"
    assert path.stat().st_size < 100_000


def test_a_chat_model_is_trained_compared_and_measured_in_ten_cells(tmp_path):
    (path,) = filter(large, notebooks())
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert len(code) == 10
    assert path.stat().st_size < 200_000
    model = write_chat_model(tmp_path / "model", "ChatML")
    done = run(path, tmp_path, f"import ebft\n\nMODEL, STEPS = {str(model)!r}, 2")
    last = [cell.outputs[-1] for cell in done.cells if cell.get("outputs")]
    _, *results, page = last  # first the summary that the run prints
    figures, picture, steps, samples, answer, compared = (output.data for output in results)
    assert "held-out CFM" in figures["text/plain"]
    assert picture["image/png"]
    assert "reward" in steps["text/plain"]
    assert samples["text/plain"].count("checkpoint") == samples["text/plain"].count("base") == 3
    assert answer["text/plain"]
    assert "difference_half_width_95" in compared["text/plain"]
    assert page.text.strip() == "runs/chat/report.html"
    assert (tmp_path / page.text.strip()).is_file()
