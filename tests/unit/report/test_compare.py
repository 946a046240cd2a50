"""Which figures of two runs are paired, and what their difference is."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ebft.console import Printer
from ebft.evaluation.lines import DocumentsLine, Line
from ebft.report.compare import (
    WHY,
    RunFigures,
    Unpaired,
    last_figures,
    other_names,
    paired_difference,
    shared_names,
)
from ebft.report.comparison_table import comparison_table
from ebft.report.read_runs import labels

FIRST = DocumentsLine(
    step=4, name="CE", unit="nats", mean=3.5, half_width_95=1.0, set="held-out", at=None,
    documents_digest="3 documents, abc", values=torch.tensor([1.0, 3.0, 5.0]),
    weights=torch.tensor([1.0, 1.0, 2.0]), clusters=torch.tensor([0, 0, 1]), share=False,
)  # fmt: skip
OTHER = replace(FIRST, mean=5.75, values=torch.tensor([2.0, 3.0, 9.0]))
HARNESS = Line(0, "arc acc", "lm-evaluation-harness", 0.5, None, "arc")


def test_a_difference_is_paired_and_clustered():
    """By hand: the documents' parts in the error are w(v − m)/Σw of OTHER less those of FIRST,

        (−0.9375 + 0.625, −0.6875 + 0.125, 1.625 − 0.75) = (−0.3125, −0.5625, 0.875).

    Of two clusters they add up to ∓0.875: with half the weight each, the variance is
    2 · 0.875² / (1 − ½) = 1.75². Of three, with ¼, ¼ and ½ of it, it is
    (0.3125² + 0.5625²) / ¾ + 0.875² / ½, and there are 1.8 degrees of freedom.
    """
    clustered = paired_difference(FIRST, OTHER)
    assert clustered.mean == pytest.approx(5.75 - 3.5)
    assert clustered.half_width == pytest.approx(12.706205 * 1.75, rel=1e-6)  # Student's t, 1 df
    each = {"clusters": torch.tensor([0, 1, 2])}
    by_document = paired_difference(replace(FIRST, **each), replace(OTHER, **each))
    assert by_document.mean == pytest.approx(2.25)
    assert by_document.half_width == pytest.approx(4.794881 * 2.083333333**0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"unit": "bits"}, Unpaired.UNITS),
        ({"documents_digest": "3 documents, abd"}, Unpaired.DOCUMENTS),
        ({"values": OTHER.values[:2]}, Unpaired.VALUES),
        ({"clusters": torch.tensor([0, 1, 2])}, Unpaired.CLUSTERS),
        ({"weights": torch.tensor([1.0, 1.0, 3.0])}, Unpaired.WEIGHTS),
    ],
)
def test_what_is_not_comparable_is_not_paired(changed, why):
    assert paired_difference(FIRST, replace(OTHER, **changed)) is why


def test_shares_that_are_the_same_everywhere_may_differ_elsewhere():
    passed = replace(FIRST, share=True, values=torch.tensor([1.0, 0.0, 1.0]))
    assert paired_difference(passed, passed).half_width == pytest.approx(1 - 0.025**0.5)
    assert paired_difference(FIRST, FIRST).half_width == 0


def test_rounding_makes_no_other_weights():
    rounded = FIRST.weights.double() * (1 + 1e-14)
    first = replace(FIRST, weights=FIRST.weights.double())
    assert not isinstance(paired_difference(first, replace(OTHER, weights=rounded)), Unpaired)


def test_the_harness_s_figures_are_not_paired():
    assert paired_difference(HARNESS, HARNESS) is Unpaired.NO_DOCUMENTS


def test_every_reason_is_explained():
    assert set(WHY) == set(Unpaired)


def test_the_last_of_each_name_counts():
    """A run that was resumed may say a step twice, and what it said last holds."""
    first, again = replace(FIRST, mean=1.0), replace(FIRST, mean=2.0)
    before, once = replace(FIRST, step=0), replace(FIRST, step=0, name="CFM")
    assert last_figures([before, once, first, again]) == {"CE": again, "CFM": once}
    assert last_figures([first, before])["CE"] is first


def run(label, *lines):
    return RunFigures(label, {line.name: line for line in lines})


def test_what_all_runs_have_is_shared():
    cfm, slope = replace(FIRST, name="CFM"), replace(FIRST, name="slope")
    runs = [run("a", cfm, FIRST), run("b", FIRST, slope, cfm), run("c", cfm)]
    assert shared_names(runs) == ["CFM"]
    assert other_names(runs) == ["CE", "slope"]


def test_a_run_is_named_by_what_tells_it_from_the_others():
    def named(*paths):
        return labels([Path(path) / "evaluations.jsonl" for path in paths])

    assert named("runs/sft", "runs/ebft") == ["sft", "ebft"]
    assert named("s/runs/a-1/output", "s/runs/b-1/output") == ["a-1", "b-1"]
    assert named("runs/a", "runs/a/n4") == ["a", "a/n4"]
    assert named("a/x", "b/x", "b/y") == ["a/x", "b/x", "b/y"]


def printed(runs, *, styled=False):
    console = Printer(width=80, force_terminal=styled, file=io.StringIO())
    console.print(comparison_table(runs))
    return console.file.getvalue()


class TestTable:
    def test_what_is_further_from_zero_than_its_interval_stands_out(self):
        many = {
            "values": torch.arange(20.0), "weights": torch.ones(20), "clusters": torch.arange(20),
        }  # fmt: skip
        first = replace(FIRST, **many)
        noise = 0.5 * (-1.0) ** torch.arange(20)
        clear = replace(first, values=first.values - 1 + noise)
        unclear = replace(first, values=first.values - 0.1 + noise)
        text = printed([run("a", first), run("b", clear), run("c", unclear)])
        rows = [" ".join(line.split()) for line in text.splitlines()]
        # The spread of ±0.5 is 0.5130; its t of 19 degrees, 2.0930, over √20.
        assert "b │ 3.5000 ± 1.0000 │ -1.0000 ± 0.2401 │ ↓" in rows
        assert "c │ 3.5000 ± 1.0000 │ -0.1000 ± 0.2401 │" in rows
        assert "differences are from a, paired document by document" in text
        styled = printed([run("a", first), run("b", clear), run("c", unclear)], styled=True)
        assert "\x1b[1m-1.0000 ± 0.2401\x1b[0m" in styled
        assert "\x1b[1m-0.1000" not in styled

    def test_what_is_not_paired_says_so_and_why(self):
        other = replace(OTHER, documents_digest="other")
        text = printed([run("a", FIRST, HARNESS), run("b", other, HARNESS)])
        assert text.count("other documents") == 2
        assert text.count("no documents") == 2
        assert "5.7500 ± 1.0000" in text, "its value is shown"
        assert "0.5000 " in text, "a value without an interval"
        assert "give them the same data, documents, evaluation.documents" in " ".join(text.split())
        assert "other weights" not in text

    def test_steps_and_what_is_missing_are_named(self):
        more = replace(FIRST, name="CFM")
        text = printed([run("a", FIRST, more), run("b", replace(OTHER, step=8))])
        assert "a: after step 4" in text
        assert "b: after step 8" in text
        assert "not in every run, so not shown: CFM" in text

    def test_labels_are_no_markup(self):
        text = printed([run("depths=[0.5]", FIRST), run("[b]", OTHER)])
        assert "depths=[0.5]" in text
        assert "[b]" in text
