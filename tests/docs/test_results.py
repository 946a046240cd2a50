"""What docs/results says of a study is what the record beside it says."""

import shutil

import pandas as pd
import pytest

from ebft.study.report.make import write_report
from tests.docs.pages import ROOT

RESULTS = ROOT / "docs" / "results"


@pytest.mark.parametrize("name", [page.parent.name for page in RESULTS.glob("*/study.json")])
def test_a_page_s_figures_are_those_of_its_runs(name, tmp_path):
    shutil.copytree(RESULTS / name, tmp_path / name)
    write_report(tmp_path / name)
    page = (RESULTS / f"{name}.md").read_text(encoding="utf-8").replace("−", "-")
    effects = pd.read_csv(tmp_path / name / "report" / "effects.csv")
    assert len(effects) > 3
    for row in effects.itertuples():
        assert f"{row.change:+.4f} ± {row.change_documents:.4f}" in page, (row.measure, row.arm)
        if pd.notna(row.difference):
            said = f"{row.difference:+.4f} ± {row.difference_documents:.4f}"
            assert said in page, (row.measure, row.arm)
