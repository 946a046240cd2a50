"""What docs/results says of a study is what the record beside it says."""

import shutil

import pandas as pd
import pytest

from ebft.study.report.make import write_report
from tests.docs.pages import ROOT

RESULTS = ROOT / "docs" / "results"


RECORDS = [file.parent.relative_to(RESULTS) for file in RESULTS.rglob("study.json")]
"""Of studies: `methods` is that of the page methods.md, `lab/data_rich` one of lab.md's."""


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.as_posix())
def test_a_page_s_figures_are_those_of_its_runs(record, tmp_path):
    shutil.copytree(RESULTS / record, tmp_path / record)
    write_report(tmp_path / record)
    page = (RESULTS / f"{record.parts[0]}.md").read_text(encoding="utf-8").replace("−", "-")
    effects = pd.read_csv(tmp_path / record / "report" / "effects.csv")
    assert len(effects) > 3
    for row in effects.itertuples():
        assert f"{row.change:+.4f} ± {row.change_documents:.4f}" in page, (row.measure, row.arm)
        if pd.notna(row.difference):
            said = f"{row.difference:+.4f} ± {row.difference_documents:.4f}"
            assert said in page, (row.measure, row.arm)
