"""The page of a run: what it shows, that it needs no other file, and that texts stay texts."""

import re

import pytest
import torch

from ebft.errors import UserError
from ebft.evaluation.history import Evaluations
from ebft.evaluation.lines import DocumentsLine
from ebft.parts.measurements import Measurement
from ebft.report.curves import ORANGE, SMOOTH
from ebft.report.panels import FEWEST, held_out_panels, step_panels
from ebft.report.rollouts_log import (
    ENDS,
    RolloutsLog,
    ShownContext,
    ShownRollout,
    cut_rollouts,
    evenly_spaced,
    read_rollouts,
)
from ebft.report.run_page import SHOWN_STEPS, RunFiles, run_page
from ebft.report.surroundings import Started, command_line, read_starts
from ebft.rollout.records import Rollouts, Scored, Terms
from ebft.runs.page import SHARE, PageWriter
from ebft.testing import tiny_documents, tiny_tokenizer
from tests.tiny import VOCAB

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def line(step, shift, name="held-out CE", at=None):
    torch.manual_seed(0)
    value = torch.rand(12, dtype=torch.float64) + shift
    measured = Measurement(
        name, "nats", value, torch.ones(12), at=at, of="held-out", clusters=torch.arange(12)
    )
    return DocumentsLine.of(step, measured, "digest")


def shown(step=10, text="a b"):
    return ShownContext(step, "f.py:1", text, "r", (ShownRollout(text, 0.5),))


def files(**changes):
    wanted = {
        "name": "mine",
        "recipe": "recipe: finetune\n",
        "steps_wanted": 30,
        "seed": 3,
        "starts": [Started("EBFT of model", "ebft run it.yaml", "today", {"torch": "2.11"})],
        "evaluations": [line(0, 2.0), line(30, 1.5)],
        "steps": {step: {"ce": 2.0, "held-out CE": 2.0} for step in range(1, 31)},
        "rollouts": [shown()],
    }
    return RunFiles(**(wanted | changes))


def test_it_shows_the_figures_the_rollouts_the_recipe_and_the_environment():
    page = run_page(files())
    assert "<h1>EBFT of model</h1>" in page
    assert "mine: 30 of 30 steps" in page
    before = line(0, 2.0).mean
    assert f"<td>{before:.4f}</td><td>{before - 0.5:.4f}</td>" in page
    assert '<td class="clear">-0.5000 ± 0.0000</td><td>12</td>' in page
    assert "CE is the cross-entropy and CFM the feature-matching loss: lower is\nbetter" in page
    for text in ("step 10", "+0.50", "recipe: finetune", "ebft run it.yaml", "2.11", "<dd>3</dd>"):
        assert text in page


@pytest.mark.parametrize(("metric", "explained"), [("alignment", True), ("ce", False)])
def test_alignment_is_explained_where_it_is_shown(metric, explained):
    page = run_page(files(steps={step: {metric: 1.0} for step in range(1, FEWEST + 1)}))
    assert f'alt="{metric} over the run"' in page
    assert ("2·φ(ŷ)·φ(y) with the reward feature_matching; higher is nearer" in page) == explained


@pytest.mark.parametrize("done", [SMOOTH, SMOOTH + 1])
def test_a_mean_over_steps_is_drawn_and_named_where_there_are_enough_steps(done):
    steps = {step: {"ce": float(step)} for step in range(1, done + 1)}
    lines = step_panels(steps, [])["ce"].axes[0].lines
    page = run_page(files(steps=steps, evaluations=[line(0, 2.0)]))
    if done > SMOOTH:
        assert list(lines[1].get_ydata()) == [4.5, 5.5]  # the means of steps 1 to 8 and 2 to 9
        assert f"Orange: mean of {SMOOTH} steps" in page
        return
    [only] = lines
    assert only.get_color() == ORANGE
    assert "Pale" not in page
    assert "Each step, on its own documents." in page


def test_the_parts_of_a_context_say_what_they_are():
    page = run_page(files())
    reference = "reference: the text's own continuation, up to the length of a rollout"
    order = [
        "rollouts of step 10", "context: the end of what the policy read of f.py:1", "a b",
        reference, "rollouts: what the policy wrote instead", "+0.50",
    ]  # fmt: skip
    assert sorted(map(page.index, order)) == [page.index(text) for text in order]


def test_it_needs_no_other_file():
    page = run_page(files())
    assert page.count("<img") == 2  # held-out CE, and the cross-entropy of steps
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in page
    assert "@import" not in page


def test_texts_of_models_and_data_stay_texts():
    page = run_page(
        files(
            rollouts=[shown(text=HOSTILE)],
            recipe=HOSTILE,
            evaluations=[line(0, 1.0, name=HOSTILE)],
        )
    )
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m") == 4


def test_a_run_that_has_measured_nothing_yet_has_a_page():
    page = run_page(files(evaluations=[], steps={}, rollouts=[], starts=[]))
    assert "<h1>mine</h1>" in page
    assert "0 of 30 steps" in page
    assert "<img" not in page


def test_a_single_evaluation_is_a_value_with_its_interval():
    measured = line(0, 2.0)
    page = run_page(files(evaluations=[measured], steps={}))
    assert f"<td>{measured.mean:.4f} ± {measured.half_width_95:.4f}</td>" in page
    assert ">before<" not in page


def test_only_the_first_and_the_newest_steps_of_many_are_shown():
    page = run_page(files(rollouts=[shown(step) for step in range(1, 40)]))
    steps = [int(step) for step in re.findall(r"<summary>rollouts of step (\d+)", page)]
    assert steps == [*range(39, 39 - SHOWN_STEPS + 1, -1), 1]


def test_pictures_are_of_each_figure_and_of_metrics_with_enough_steps():
    history = Evaluations.of([line(0, 2.0), line(5, 1.0), line(0, 1, "CFM of 8 tokens", at=8)])
    assert list(held_out_panels(history)) == ["held-out CE"]
    history = Evaluations.of([line(0, 1, "CFM of 8 tokens", at=8)])
    assert list(held_out_panels(history)) == ["CFM of … tokens"]
    steps = {step: {"new": 1.0, "grad_norm": 2.0} for step in range(FEWEST)}
    assert list(step_panels(steps, [])) == ["grad_norm", "new"]
    assert list(step_panels(steps, ["new"])) == ["grad_norm"]
    assert step_panels({step: steps[step] for step in range(FEWEST - 1)}, []) == {}


def scored(n):
    """The first tokens of documents again as rollouts; rollout j has the reward j."""
    from ebft.plans.strided import Strided

    contexts = Strided(start=4, stride=4, rollout_length=3)(tiny_documents([12, 9]))
    P = len(contexts)
    tokens = torch.arange(P * n * 3).view(P, n, 3) % VOCAB
    mask = torch.ones(P, n, 3, dtype=torch.bool)
    mask[..., 2] = False
    rollouts = Rollouts(contexts, tokens, torch.zeros(P, n, 3), mask, 1.0)
    reward = torch.arange(n, dtype=torch.float32).expand(P, n).contiguous()
    return Scored(rollouts, None, Terms.of_unary(reward), reward)


def test_the_log_has_contexts_with_their_rollouts_the_highest_reward_first(tmp_path):
    file, tokenizer = tmp_path / "rollouts.jsonl", tiny_tokenizer()
    log, one = RolloutsLog(file, tokenizer), scored(4)
    log.log(10, one)
    log.log(20, one)
    found = read_rollouts(file)
    assert [it.step for it in found] == [10] * 3 + [20] * 3
    places = evenly_spaced(len(one.rollouts.contexts))
    c = one.rollouts.contexts
    for place, it in zip(places, found[:3], strict=True):
        row, anchor = int(c.row[place]), int(c.anchor[place])
        assert it.document == c.documents[row].name
        assert it.context == tokenizer.decode(c.tokens[row, :anchor])
        assert it.reference == tokenizer.decode(c.reference[place][c.reference_mask[place]])
        assert [r.reward for r in it.rollouts] == [3, 2, 1, 0]
        assert [r.text for r in it.rollouts] == [
            tokenizer.decode(one.rollouts.tokens[place, j, :2]) for j in (3, 2, 1, 0)
        ]
    cut_rollouts(file, after=10)
    assert read_rollouts(file) == found[:3]


def test_of_many_rollouts_the_log_has_the_highest_and_the_lowest(tmp_path):
    file, n = tmp_path / "rollouts.jsonl", 3 * ENDS
    RolloutsLog(file, tiny_tokenizer()).log(1, scored(n))
    expected = [*range(n - 1, n - 1 - ENDS, -1), *range(ENDS - 1, -1, -1)]
    assert [r.reward for r in read_rollouts(file)[0].rollouts] == expected


@pytest.mark.parametrize("text", ['{"step": 1}\n', "[]\n", '{"step": -1, "document": ""}\n'])
def test_a_damaged_log_is_named_with_its_line(tmp_path, text):
    file = tmp_path / "rollouts.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=r"rollouts.jsonl is damaged: line 1: .*delete it"):
        read_rollouts(file)
    with pytest.raises(UserError):
        cut_rollouts(file, after=0)
    assert file.read_text() == text


def test_a_damaged_environment_is_named_with_its_line(tmp_path):
    file = tmp_path / "environment.jsonl"
    Started.now("EBFT of model").append_to(file)
    assert read_starts(file)[0].what == "EBFT of model"
    file.write_text(file.read_text() + '{"what": 3}\n')
    with pytest.raises(UserError, match=r"environment.jsonl is damaged: line 2: .*delete it"):
        read_starts(file)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/opt/bin/ebft", "run", "a b.yaml"], "ebft run 'a b.yaml'"),
        (["/opt/bin/tune", "run", "a.yaml"], "tune run a.yaml"),
        (["/home/me/train.py", "--fast"], "python train.py --fast"),
        (["/opt/lib/ipykernel_launcher.py", "-f", "kernel.json"], "a notebook"),
    ],
)
def test_the_command_names_no_folder_of_the_program(monkeypatch, argv, command):
    monkeypatch.setattr("sys.argv", argv)
    assert command_line() == command


def test_a_module_is_named_as_it_is_started(monkeypatch):
    from ebft.parts.version import PACKAGE

    monkeypatch.setattr("sys.argv", [str(PACKAGE / "cli" / "main.py"), "ls"])
    assert command_line() == "ebft ls"
    monkeypatch.setattr("sys.argv", [str(PACKAGE / "study" / "worker.py"), "folder"])
    assert command_line() == "python -m ebft.study.worker folder"


def test_the_page_takes_a_small_share_of_a_runs_time(monkeypatch, tmp_path):
    now, writes = [0.0], []

    def write(folder):
        writes.append(now[0])
        now[0] += 2.0
        return folder

    monkeypatch.setattr("ebft.runs.page.perf_counter", lambda: now[0])
    monkeypatch.setattr("ebft.runs.page.write_run_page", write)
    page = PageWriter(tmp_path)
    for _ in range(1000):
        now[0] += 1.0
        page.update()
    assert writes[:2] == [1.0, 1.0 + 2.0 + 2.0 / SHARE]
    assert 2.0 * len(writes) <= SHARE * now[0] + 2.0


def test_a_page_that_cannot_be_written_ends_no_run(tmp_path, caplog):
    (tmp_path / "recipe.yaml").write_text("recipe: finetune\nseed: 0\n")
    (tmp_path / "report.html").mkdir()
    assert PageWriter(tmp_path).write() is None
    assert "report.html: not written: " in caplog.text
