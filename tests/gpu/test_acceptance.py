"""The acceptance script, rehearsed on the CPU: it runs, its figures are sane, a failure is told."""

import json
import logging
import math

import pytest

from tests.gpu import acceptance
from tests.gpu.acceptance import NO_TIME, PARTS, Part, alone, main, read, table
from tests.gpu.report import FAILED, PASSED, SKIPPED, Place, Report, Skip

PHASES = {
    f"{phase}: {what}"
    for phase in ("sampling", "features", "training", "whole step")
    for what in ("time", "peak", "MFU")
}
LAYOUTS = {
    "whole step: time",
    "whole step: public / tree, time",
    "whole step: public / tree, memory",
}
LEARNED = {
    f"{method}: {figure} {when}"
    for method in ("sft", "ebft")
    for figure in ("held-out CE", "held-out CFM")
    for when in ("before", "after")
}
EXPECTED = {
    "equality": {f"{name}: from dense, float32" for name in ("tree", "flex")},
    "lora": {"adapter: from dense, float32", "4 bits: from the CPU"},
    "resume": {"tensors that differ: again", "tensors that differ: halves"},
    "halving": {"peak when halved", "tensors that differ from 4 at a time"},
    "memory": {"all weights: peak", "QLoRA, rank 16: estimate over peak"},
    "phases-1.5b-flex": PHASES,
    "layouts": LAYOUTS,
    "learning": LEARNED | {"ebft: sampler's gap", "a step of EBFT"},
}
SECONDS = ("resume", "halving", "memory", "layouts", "learning")


@pytest.fixture
def place(tmp_path):
    yield Place("cpu", True, 1.0, tmp_path)
    logging.getLogger("ebft").handlers = []  # a part that runs recipes adds them
    logging.getLogger("ebft").propagate = True


def rehearsed(name, place):
    assert alone(name, place) == 0, read(place.folder)[name]
    return read(place.folder)[name]


def check(report, expected):
    assert report["status"] == PASSED
    figures = report["figures"]
    assert expected <= figures.keys()
    for name in expected:
        value = figures[name]["value"]
        assert isinstance(value, str) or math.isfinite(value), name
        assert isinstance(value, str) or value >= 0 or "peak" in name or "CFM" in name, name
    assert {"hardware", "commit", "torch", "seconds"} <= report.keys()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SECONDS)) for name in EXPECTED]
)
def test_a_part_has_its_figures(name, place):
    check(rehearsed(name, place), EXPECTED[name])
    text = table(read(place.folder))
    assert all(figure in text for figure in EXPECTED[name])


def test_the_profiler_says_what_took_the_time(place):
    check(rehearsed("phases-0.5b-tree", place), PHASES)
    assert "aten::" in (place.folder / "phases-0.5b-tree-training.txt").read_text()


def test_vllm_runs_or_says_what_to_install(place):
    if acceptance.learning.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed: the plug-in's tests run it")
    report = rehearsed("vllm", place)
    assert report["status"] == SKIPPED
    assert "vllm is not installed; run: pip install vllm" in report["why"]


@pytest.mark.slow
def test_one_command_runs_parts_and_says_whether_all_have_passed(tmp_path, capsys):
    arguments = ["--rehearse", "--parts=lora,phases-0.5b-tree", f"--out={tmp_path}"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.count("passed") == 2
    assert (tmp_path / "lora.log").exists()
    # Without time nothing runs, and what was there before is not lost for the other parts.
    assert main([*arguments[:1], "--parts=lora", arguments[2], "--minutes=0"]) == 1
    reports = read(tmp_path)
    assert reports["lora"]["status"] == NO_TIME
    assert reports["phases-0.5b-tree"]["status"] == PASSED


def failing(report, place):
    report.figure("found before", 1.0)
    raise ValueError("a kernel\nfailed")


def outside(report, place):
    report.check("a gap", 3.0, at_most=2.0)
    report.check("not finite", float("nan"), at_most=2.0)
    report.check("within", 1.0, at_most=2.0)
    report.check("a GPU's figure", 3.0, at_most=2.0, only_on_gpu=True)


def skipping(report, place):
    raise Skip("it is not installed")


@pytest.mark.parametrize(
    ("run", "status", "code", "why"),
    [
        (failing, FAILED, 1, "ValueError: a kernel"),
        (outside, FAILED, 1, "outside its limits: a gap, not finite"),
        (skipping, SKIPPED, 0, "it is not installed"),
    ],
)
def test_how_a_part_ends_is_told(monkeypatch, place, run, status, code, why):
    monkeypatch.setitem(PARTS, "equality", Part(run, 1, 1))
    assert alone("equality", place) == code
    (report,) = read(place.folder).values()
    assert (report["status"], report["why"]) == (status, why)
    text = table(read(place.folder))
    assert why in text
    assert text.count("OUTSIDE") == (2 if run is outside else 0)
    if run is failing:
        assert report["figures"] == {"found before": {"value": 1.0, "unit": ""}}


def test_figures_are_written_as_they_come(place):
    report = Report("equality", place)
    report.figure("first", 1.0)
    written = json.loads((place.folder / "equality.json").read_text())
    assert written["status"] == "running"
    assert written["figures"]["first"]["value"] == 1.0


@pytest.mark.parametrize("parts", ["equalty", "equality,", "quick,lora"])
def test_parts_that_are_none_are_refused(parts, capsys):
    with pytest.raises(SystemExit):
        main(["--rehearse", f"--parts={parts}"])
    assert "give some of equality, lora, resume" in capsys.readouterr().err
