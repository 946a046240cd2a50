"""The report of a study from its folder alone: figures, tables, pictures, one page."""

import json
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pandas as pd
import pytest

from ebft.study.folder import StudyFolder
from ebft.study.report.effects import effects
from ebft.study.report.groups import comparisons, crossings
from ebft.study.report.make import write_report
from ebft.study.report.plots import plot_heat_map
from ebft.study.report.read import read_study
from ebft.study.report.records import tidy
from tests.unit.report.studies import (
    DOCUMENTS,
    LENGTHS,
    arm,
    grid_study,
    variants_study,
    write_study,
)

GROWTH = 1 + 0.1 * (DOCUMENTS - 1) / 2
"""The mean over documents of what an effect is multiplied by."""


def row(table, measure, label):
    (found,) = table[(table.measure == measure) & (table.arm == label)].to_dict("records")
    return found


def test_every_figure_is_a_row(tmp_path):
    table = tidy(read_study(grid_study(tmp_path)))
    assert len(table) == 8 * (3 * 2 + 4 * 2)
    last = table[(table.run == "n2g0-1") & (table.step == 4)].set_index("measure")
    assert list(last.index) == ["held-out CE", "held-out CFM", "ce", "seconds"]
    assert list(last.split) == ["held-out", "held-out", "training", "training"]
    assert set(last.tflop) == {2.0}
    assert set(last.seconds) == {8.0}
    assert set(last.seed) == {1}
    assert last.documents["held-out CE"] == DOCUMENTS
    halfway = table[(table.run == "n2g0-1") & (table.step == 2)]
    assert set(halfway.tflop) == {1.0}


def test_effects_are_the_differences_that_were_put_in(tmp_path):
    table = effects(read_study(grid_study(tmp_path)))
    found = row(table, "held-out CE", "n=2")
    # effect of n = 2, g = 1: 0.4 + 0.02 seed; of the reference: 0.6 + 0.04 seed
    assert found["seeds"] == 2
    assert found["change"] == pytest.approx(-(0.4 + 0.42) / 2 * GROWTH)
    assert found["difference"] == pytest.approx((0.2 + 0.22) / 2 * GROWTH)
    spread = 0.02 * GROWTH / 2**0.5  # the two seeds' standard deviation
    assert found["difference_seeds"] == pytest.approx(12.7062 * spread / 2**0.5, rel=1e-4)
    assert 0 < found["difference_pooled"] < found["difference_seeds"]
    assert 0 < found["difference_documents"] < found["difference"]
    reference = row(table, "held-out CE", "reference")
    assert pd.isna(reference["difference"])
    assert pd.isna(reference["difference_pooled"])


def test_one_seed_has_no_interval_over_seeds(tmp_path):
    found = row(effects(read_study(grid_study(tmp_path, seeds=(0,)))), "held-out CE", "n=2")
    assert pd.isna(found["difference_seeds"])
    assert pd.isna(found["difference_pooled"])
    assert found["difference_documents"] > 0


def test_runs_on_other_documents_are_not_paired(tmp_path):
    folder = StudyFolder(grid_study(tmp_path))
    file = folder.run("n2g1-0").evaluations
    file.write_text(file.read_text().replace('"documents_digest": "d"', '"documents_digest": "e"'))
    found = row(effects(read_study(tmp_path)), "held-out CE", "n=2")
    assert found["difference"] > 0
    assert pd.isna(found["difference_documents"])


def test_factors_are_compared_alone_where_they_were_varied_alone(tmp_path):
    n, g = comparisons(read_study(grid_study(tmp_path)))
    assert (n.title, g.title) == ("n", "g")
    assert {label: [run.name for run in runs] for label, runs in n.groups.items()} == {
        "2": ["n2g1-0", "n2g1-1"],
        "4": ["n4g1-0", "n4g1-1"],
    }
    assert [run.name for run in n.against] == ["n4g1-0", "n4g1-1"]
    # g never was: over both n
    assert [run.name for run in g.groups["0"]] == ["n2g0-0", "n4g0-0", "n2g0-1", "n4g0-1"]
    (crossing,) = crossings(read_study(tmp_path))
    assert [run.name for run in crossing.cells["2", "0"]] == ["n2g0-0", "n2g0-1"]


def test_runs_that_failed_or_are_not_done_are_named_and_left_out(tmp_path):
    runs = {
        "good": ([arm("reference")], 0, {"effect": 0.1}),
        "bad": ([arm("n=2", sampler__n="2")], 0, {"effect": 0.1, "status": "failed"}),
        "late": ([arm("n=8", sampler__n="8")], 0, {"effect": 0.1, "status": "pending"}),
    }
    page = write_report(write_study(tmp_path, runs)).read_text()
    assert re.search(r"<code>bad</code>: failed: step 3: NaN</li>", page)
    assert "<code>late</code>: not done" in page
    table = pd.read_csv(tmp_path / "report" / "effects.csv")
    assert set(table.arm) == {"reference"}


@pytest.mark.parametrize(
    ("write", "pictures"),
    [
        (grid_study, {"effects", "heat_map-n-g", "curves-n", "curves-g"}),
        (variants_study, {"effects", "by_length-variants", "curves-variants"}),
    ],
)
def test_the_report_is_whole_and_the_same_again(tmp_path, write, pictures):
    index = write_report(write(tmp_path))
    folder = index.parent
    assert {file.stem for file in folder.glob("*.png")} == pictures
    page = index.read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "ebft study example.yaml" in page
    assert "0.1.0, commit abc" in page
    assert str(tmp_path) not in page
    every = pd.read_parquet(folder / "metrics.parquet")
    read = pd.read_csv(folder / "metrics.csv")
    same = (table.astype(object).fillna("–") for table in (every, read))
    pd.testing.assert_frame_equal(*same, check_dtype=False)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    write_report(tmp_path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_measure_that_some_arms_lack_is_compared_where_it_is(tmp_path):
    folder = StudyFolder(variants_study(tmp_path, seeds=(0,)))
    for name, measures in {"SFT-0": ("held-out CFM",), "RLVR-0": LENGTHS}.items():
        file = folder.run(name).evaluations
        lines = [
            line
            for line in file.read_text().splitlines()
            if json.loads(line)["name"] not in measures
        ]
        file.write_text("\n".join(lines) + "\n")
    assert write_report(tmp_path).is_file()
    table = effects(read_study(tmp_path))
    assert set(table[table.measure == "held-out CFM"].arm) == {"RLVR", "EBFT"}
    assert set(table[table.measure == "held-out CFM of 8 tokens"].arm) == {"SFT", "EBFT"}


def test_an_arm_that_lacks_seeds_has_a_wider_pooled_interval(tmp_path):
    runs = {
        f"{label}-{seed}": (
            [arm(label, variant=label)],
            seed,
            {"effect": effect * (1 + 0.1 * seed)},
        )
        for label, effect in {"A": 0.1, "B": 0.2, "C": 0.5, "D": 0.4}.items()
        for seed in (0, 1, 2)
        if label != "D" or seed == 0
    }
    table = effects(read_study(write_study(tmp_path, runs, reference="A")))
    whole, one = (row(table, "held-out CE", label)["difference_pooled"] for label in "BD")
    assert one == pytest.approx(whole * 3**0.5)


def test_an_arm_that_equals_the_reference_is_not_called_it(tmp_path):
    runs = {
        f"{n}{g}": ([arm(f"n={n}, g={g}", sampler__n=n, objective__g=g)], 0, {"effect": effect})
        for n, g, effect in (("2", "0", 0.1), ("2", "1", 0.1), ("4", "0", 0.3), ("4", "1", 0.4))
    }
    factors = {"sampler.n": ["2", "4"], "objective.g": ["0", "1"]}
    study = read_study(write_study(tmp_path, runs, factors=factors, reference="n=2, g=0"))
    (crossing,) = crossings(study)
    texts = [text.get_text() for text in plot_heat_map(study, crossing).axes[0].texts]
    assert texts[0] == "reference"
    assert texts[1] == "+0.000\n± 0.000"


def test_labels_are_shown_as_they_are(tmp_path):
    label = "stop=$\\x$ <b>&"
    runs = {
        "one": ([arm(label, variant=label)], 0, {"effect": 0.1}),
        "two": ([arm("$a_b_c$", variant="$a_b_c$")], 0, {"effect": 0.2}),
    }
    page = write_report(write_study(tmp_path, runs, reference=label)).read_text()
    assert "stop=$\\x$ &lt;b&gt;&amp;" in page


def test_several_processes_write_the_same_report(tmp_path):
    path = grid_study(tmp_path, seeds=(0,))
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        pages = list(pool.map(write_report, [path] * 6))
    assert {page.name for page in pages} == {"index.html"}
    assert len(list(pages[0].parent.glob("*.png"))) == 4
    assert not list(pages[0].parent.glob("*.partial"))


def test_lines_that_were_cut_off_or_said_twice_count_once(tmp_path):
    folder = StudyFolder(variants_study(tmp_path))
    before = tidy(read_study(tmp_path))
    run = folder.run("SFT-0")
    again = json.loads(run.metrics.read_text().splitlines()[1])
    with run.metrics.open("a") as file:
        file.write(json.dumps(again) + "\n" + '{"step": 3, "ce": 1')
    pd.testing.assert_frame_equal(tidy(read_study(tmp_path)), before)


def test_a_folder_without_a_study(ebft, tmp_path):
    status, _, err = ebft("report", str(tmp_path))
    assert status == 2
    assert err.strip() == (
        f"{tmp_path}: no study in this folder (neither plan.json nor a record's study.json is "
        "there)"
    )


HOSTILE = "[layer 8] <script>|`x` *_a_ $1 $2\x1b[31m"


@pytest.fixture
def hostile_study(tmp_path):
    """Labels, factors, a title and a failure that Markdown, HTML and a terminal would obey."""
    levels = {"a/../b": HOSTILE, "a_.._b": "_x"}
    runs = {
        "one": ([arm("reference")], 0, {"effect": 0.1}),
        "two": ([arm(HOSTILE, **{"a/../b": HOSTILE, "a_.._b": "_x"})], 0, {"effect": 0.2}),
        "three": ([arm("3", **{"a/../b": "0", "a_.._b": "1"})], 0, {"effect": 0.3}),
        "failed": ([arm(f"{HOSTILE} 2")], 0, {"effect": 0.1, "status": "failed"}),
    }
    factors = {key: [label, "0", "1"] for key, label in levels.items()}
    return write_study(tmp_path, runs, factors=factors)


def test_labels_are_shown_as_they_are_whatever_is_in_them(hostile_study, ebft):
    status, out, err = ebft("report", str(hostile_study))
    assert status == 0, err
    folder = hostile_study / "report"
    tables, page = (folder / "tables.md").read_text(), (folder / "index.html").read_text()
    shown = r"| \[layer 8\] &lt;script&gt;&#124;\`x\` \*\_a\_ &#36;1 &#36;2\\x1b\[31m |"
    assert shown in tables
    assert r"[layer 8] &lt;script&gt;|`x` *_a_ $1 $2\x1b[31m" in page
    for text in (tables, page, out, err):
        assert "\x1b" not in text
        assert "<script" not in text


def test_pictures_of_factors_with_slashes_lie_in_the_report(hostile_study, ebft):
    ebft("report", str(hostile_study))
    pictures = list(hostile_study.rglob("*.png"))
    assert {file.parent for file in pictures} == {hostile_study / "report"}
    curves = [file.name for file in pictures if file.name.startswith("curves-_b")]
    assert len(curves) == 2, pictures  # of two factors whose names come out alike
    page = (hostile_study / "report" / "index.html").read_text()
    assert page.count("data:image/png") == len(pictures)


def test_figures_of_other_documents_are_not_paired(tmp_path):
    folder = grid_study(tmp_path)
    file = StudyFolder(folder).run(next(iter(StudyFolder(folder).plan().runs))).evaluations
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:  # of the same digest, as a damaged file has
        line.update(values=line["values"][:-1], weights=line["weights"][:-1])
        line.update(clusters=line["clusters"][:-1])
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = effects(read_study(folder))
    assert table["difference_documents"].isna().any()
