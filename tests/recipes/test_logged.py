"""What metric loggers get from a whole run: the recipe, tables, intervals and the run's id."""

import json
from types import SimpleNamespace

import pytest

from ebft.evaluation.lines import read_evaluations
from ebft.scoring.interval import mean_interval

PLUGIN = "plugins=[tests.recipes.test_logged]"
LOGGER = (PLUGIN, "metric_loggers=[{_component_: tests.recipes.test_logged.Recording}]")
RUNS = []


class Recording:
    """A logger with tables, which keeps what it gets in `RUNS`."""

    def __init__(self):
        self.kept = SimpleNamespace(run=None, figures=[], tables=[], closed=False)
        RUNS.append(self.kept)

    def begin(self, run):
        self.kept.run = run

    def log_dict(self, payload, step):
        self.kept.figures.append((step, dict(payload)))

    def log_table(self, name, columns, rows, step):
        self.kept.tables.append(
            (name, step, [dict(zip(columns, row, strict=True)) for row in rows])
        )

    def close(self):
        self.kept.closed = True


class Plain:
    """A logger as earlier versions knew them."""

    def log_dict(self, payload, step):
        RUNS.append((step, dict(payload)))

    def close(self):
        pass


@pytest.fixture(autouse=True)
def none_yet():
    RUNS.clear()


def test_a_run_and_the_run_that_continues_it(ebft, tiny_run, tmp_path):
    folder = tmp_path / "run"
    status, _, err = ebft(*tiny_run(*LOGGER, "training.show_rollouts_every=2"))
    assert status == 0, err
    status, _, err = ebft(*tiny_run(*LOGGER, "training.steps=4", "checkpoint.resume=auto"))
    assert status == 0, err
    first, second = RUNS
    assert (first.closed, second.closed) == (True, True)
    assert first.run.id == second.run.id == (folder / "run_id").read_text().strip()
    assert first.run.name == "run"
    assert first.run.recipe["training"]["steps"] == 3
    assert second.run.recipe["training"]["steps"] == 4

    evaluated = [(step, rows) for name, step, rows in first.tables if name == "evaluation"]
    assert [step for step, _ in evaluated] == [0, 2, 3]
    named = {row["figure"]: row for row in evaluated[-1][1]}
    assert evaluated[0][1][0]["change"] is None
    steps = {
        (it.step, it.name): it.measurement()
        for it in read_evaluations(folder / "evaluations.jsonl")
    }
    measured = steps[3, "held-out CE"]
    interval = mean_interval(measured)
    assert named["held-out CE"]["mean"] == interval.mean
    assert named["held-out CE"]["± 95 %"] == interval.half_width
    change = interval.mean - mean_interval(steps[0, "held-out CE"]).mean
    assert named["held-out CE"]["change"] == pytest.approx(change)
    assert named["held-out CE"]["documents"] == 3
    bounds = [it for step, it in first.figures if step == 3 and "held-out CE, low" in it]
    assert bounds[0]["held-out CE, low"] == interval.mean - interval.half_width
    assert bounds[0]["held-out CE, high"] == interval.mean + interval.half_width

    rollouts = [(step, rows) for name, step, rows in first.tables if name == "rollouts"]
    assert [step for step, _ in rollouts] == [1, 3]
    for _, rows in rollouts:
        contexts = {row["context"] for row in rows}
        assert 1 < len(contexts) <= 8
        for context in contexts:
            head, *others = [row for row in rows if row["context"] == context]
            assert (head["kind"], head["reward"]) == ("reference", None)
            rewards = [row["reward"] for row in others]
            assert len(rewards) == 4
            assert rewards == sorted(rewards, reverse=True)


def test_another_run_in_the_folder_is_another_run(ebft, tiny_run):
    for more in ((), ("overwrite=true",)):
        status, _, err = ebft(*tiny_run(*LOGGER, "training.steps=1", *more))
        assert status == 0, err
    first, second = RUNS
    assert first.run.id != second.run.id


def test_a_logger_without_tables_gets_what_metrics_jsonl_has(ebft, tiny_run, tmp_path):
    logger = "metric_loggers=[{_component_: tests.recipes.test_logged.Plain}]"
    status, _, err = ebft(*tiny_run(PLUGIN, logger))
    assert status == 0, err
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [{"step": step, **figures} for step, figures in RUNS] == [*map(json.loads, lines)]
