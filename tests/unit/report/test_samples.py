"""Samples of two models: their means with intervals, the page, and that texts stay texts."""

import json
import re

import torch
from rich.console import Console

from ebft.report.samples import (
    Sample,
    SampledContext,
    Samples,
    samples_page,
    samples_table,
    summary,
    summary_of_samples,
    write_samples,
)
from ebft.scoring.interval import difference

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def context(number, base, checkpoint, reference="ref", text="text"):
    def samples(values):
        return [Sample(text, value, None if value is None else 2 * value) for value in values]

    return SampledContext(
        f"f.py:{number}", number, f"context {number}", reference,
        {"base": samples(base), "checkpoint": samples(checkpoint)},
    )  # fmt: skip


def of(*contexts, **changes):
    given = {"title": "Samples of mine", "models": {"base": "it", "checkpoint": "runs/mine"},
             "settings": {"sampler": "hf_tree"}, "contexts": contexts}  # fmt: skip
    return Samples(**(given | changes))


def test_the_change_is_paired_over_contexts():
    base, checkpoint = [0.1, 0.5, 0.2], [0.4, 0.6, 0.5]
    contexts = [
        context(i, [b, b], [c, c]) for i, (b, c) in enumerate(zip(base, checkpoint, strict=True))
    ]
    ones = torch.ones(3, dtype=torch.float64)
    expected = difference(
        [(torch.tensor(checkpoint, dtype=torch.float64), ones)],
        [(torch.tensor(base, dtype=torch.float64), ones)],
        clusters=torch.arange(3),
    )
    alignment, reward = summary(of(*contexts))
    assert alignment == [
        "alignment", "+0.2667", "+0.5000", f"{expected.mean:+.4f} ± {expected.half_width:.4f}",
    ]  # fmt: skip
    assert reward[1:3] == ["+0.5333", "+1.0000"]


def test_contexts_of_one_cluster_give_no_interval():
    same = [context(0, [0.1], [0.2]), context(0, [0.3], [0.4])]
    assert summary(of(*same))[0][-1] == "+0.1000 (too few)"


def test_contexts_without_a_reference_do_not_count():
    bare = context(1, [None], [None], reference=None)
    assert summary(of(bare)) == []
    assert summary_of_samples(of(bare)) is None
    both = summary(of(bare, context(2, [0.5], [0.25])))
    assert both[0][:3] == ["alignment", "+0.5000", "+0.2500"]
    assert "<th>" not in samples_page(of(bare))


def test_the_page_has_both_models_and_needs_no_other_file():
    page = samples_page(of(context(0, [0.25], [-0.5])))
    for text in ("Samples of mine", "runs/mine", "context 0", "ref", "alignment +0.25",
                 "alignment -0.50", "reward +0.50", 'width: 25%', 'width: 0%'):  # fmt: skip
        assert text in page
    assert not re.search(r"(src|href)=", page)
    assert "http" not in page


def test_texts_of_models_stay_texts():
    page = samples_page(of(context(0, [0.1], [0.1], HOSTILE, HOSTILE), title=HOSTILE))
    assert "<script" not in page
    assert "\x1b" not in page


def test_the_table_has_a_column_of_references_if_there_are_any():
    def headings(*contexts):
        return [column.header for column in samples_table(of(*contexts)).columns]

    bare = context(1, [None], [None], reference=None)
    assert headings(bare) == ["context (end)", "base", "checkpoint"]
    assert headings(bare, context(0, [0.1], [0.1]))[1] == "reference"
    console = Console(width=200, record=True)
    console.print(samples_table(of(context(0, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))))
    shown = console.export_text()
    assert all(text in shown for text in ("+0.10 'text'", "+0.20 'text'", "+0.40 'text'"))
    assert "before a text: its alignment, the cosine of" in shown
    assert samples_table(of(bare)).caption is None


def test_the_file_has_a_line_for_each_context(tmp_path):
    file = tmp_path / "deep" / "samples.jsonl"
    write_samples(of(context(0, [0.25], [0.5]), context(1, [None], [None], None)), file)
    first, second = map(json.loads, file.read_text().splitlines())
    assert first == {
        "document": "f.py:0", "context": "context 0", "reference": "ref",
        "base": [{"text": "text", "alignment": 0.25, "reward": 0.5}],
        "checkpoint": [{"text": "text", "alignment": 0.5, "reward": 1.0}],
    }  # fmt: skip
    assert second["reference"] is None
    assert file.with_suffix(".html").read_text() == samples_page(
        of(context(0, [0.25], [0.5]), context(1, [None], [None], None))
    )
