# ruff: noqa: E501 — a table is one line
"""ebft's metric loggers write what other programs read."""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest

from ebft.errors import UserError
from ebft.report.loggers import LoggedRun, TensorBoardLogger, TrackioLogger, WandBLogger
from ebft.runs.progress import make_metric_loggers
from tests.unit.config.test_component import component

RUN = LoggedRun("abc123", "mine", {"seed": 3, "model": {"path": "tiny"}})
COLUMNS = ("context", "text", "reward")
ROWS = ((1, "a | b", 0.5), (1, "c", None))


def test_tensorboard_reads_each_figure_at_its_step(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for step in (0, 1):  # as a run that was resumed: two processes, one folder
        logger = TensorBoardLogger(log_dir=str(tmp_path / "board"))
        logger.log_dict({"ce": 2.5 - step, "held-out CFM": 0.25}, step=step)
        logger.close()
    found = reader.EventAccumulator(str(tmp_path / "board"))
    found.Reload()
    values = {
        tag: [(it.step, found_value(it)) for it in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
    }
    assert values == {"ce": [(0, 2.5), (1, 1.5)], "held-out CFM": [(0, 0.25), (1, 0.25)]}


def found_value(event):
    return event.tensor_proto.float_val[0]


def test_tensorboard_has_the_recipe_and_tables_as_texts(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(log_dir=str(tmp_path))
    logger.begin(RUN)
    logger.log_table("rollouts", COLUMNS, ROWS, step=5)
    logger.close()
    found = reader.EventAccumulator(str(tmp_path))
    found.Reload()
    texts = {
        tag: (event.step, event.tensor_proto.string_val[0].decode())
        for tag in found.Tags()["tensors"]
        for event in found.Tensors(tag)
    }
    table = "| context | text | reward |\n| --- | --- | --- |\n| 1 | a &#124; b | 0.5000 |\n| 1 | c |  |"
    assert texts == {
        "recipe/text_summary": (0, "    seed: 3\n    model:\n      path: tiny\n"),
        "rollouts/text_summary": (5, table),
    }


@pytest.mark.slow
def test_wandb_has_the_run_in_its_folder(tmp_path):
    """Without a network: wandb then keeps the run, to upload it later."""
    wandb = pytest.importorskip("wandb")
    for part in (1, 2):  # the second is resumed
        logger = WandBLogger(project="some", log_dir=str(tmp_path / "kept"), mode="offline")
        logger.begin(RUN)
        run = wandb.run
        assert (run.id, run.name, run.project) == ("abc123", "mine", "some")
        assert run.config.as_dict() == RUN.recipe
        for step in (3 * part, 3 * part + 1):
            logger.log_dict({"ce": step / 2}, step=step)
        logger.log_table("rollouts", COLUMNS, ROWS, step=3 * part + 1)
        assert (run.summary["ce"], run.summary["step"]) == (1.5 * part + 0.5, 3 * part + 1)
        logger.close()
        assert wandb.run is None
        time.sleep(1.1)  # wandb names the folders by the second
    records = list((tmp_path / "kept" / "wandb").glob("offline-run-*-abc123/run-abc123.wandb"))
    assert len(records) == 2
    for record in records:
        (table,) = record.parent.glob("files/media/table/rollouts_*.table.json")
        kept = json.loads(table.read_text())
        assert (kept["columns"], kept["data"]) == (list(COLUMNS), [list(row) for row in ROWS])


@pytest.mark.slow
def test_trackio_has_one_run_of_both_parts(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    program = (
        "from tests.unit.report.test_loggers import COLUMNS, ROWS, RUN\n"
        "from ebft.report.loggers import TrackioLogger\n"
        "for step in (3, 6):\n"
        "    logger = TrackioLogger(project='some', auto_log_cpu=False)\n"
        "    logger.begin(RUN)\n"
        "    logger.log_dict({'ce': step / 2}, step=step)\n"
        "    logger.log_table('rollouts', COLUMNS, ROWS, step=step)\n"
        "    logger.close()\n"
    )
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # which trackio reads when it is imported
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    with closing(sqlite3.connect(tmp_path / "some.db")) as kept:
        runs = kept.execute("select distinct run_name from metrics").fetchall()
        rows = kept.execute("select step, metrics from metrics order by id").fetchall()
        (config,) = kept.execute("select config from configs").fetchone()
    assert runs == [("mine-abc123",)]
    assert json.loads(config).items() >= RUN.recipe.items()
    logged = [(step, json.loads(metrics)) for step, metrics in rows]
    assert [(step, it["ce"]) for step, it in logged if "ce" in it] == [(3, 1.5), (6, 3.0)]
    tables = [(step, it["rollouts"]["_value"]) for step, it in logged if "rollouts" in it]
    table = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    assert tables == [(3, table), (6, table)]


@pytest.mark.parametrize(
    ("path", "arguments", "package"),
    [
        ("ebft.report.loggers.TensorBoardLogger", {"log_dir": "x"}, "tensorboard"),
        ("ebft.report.loggers.WandBLogger", {}, "wandb"),
        ("ebft.report.loggers.TrackioLogger", {}, "trackio"),
    ],
)
def test_a_logger_without_its_package(path, arguments, package, monkeypatch):
    monkeypatch.setattr("ebft.parts.packages.find_spec", lambda name: None)
    made = component(_component_=path, **arguments)
    with pytest.raises(UserError) as error:
        make_metric_loggers([made], RUN)
    extra = "trackio" if package == "trackio" else "logging"
    assert str(error.value) == (
        f"metric_loggers.0 = {path}: cannot be created ({made.call()}: needs {package}, which is "
        f"not installed; run: pip install 'ebft[{extra}]'); fix that, or leave it out"
    )


class Package:
    """As much of wandb and trackio as the loggers call: it records the calls."""

    def __init__(self):
        self.calls = []

    def init(self, **given):
        self.calls.append(given)
        return self

    def define_metric(self, *given, **more):
        self.calls.append((*given, *more.values()))

    def log(self, payload, **more):
        self.calls.append((payload, *more.values()))

    def finish(self):
        self.calls.append("finished")

    class Table:
        def __init__(self, *, columns, data):
            self.kept = (columns, data)

        def __eq__(self, other):
            return self.kept == other.kept

        __hash__ = None


@pytest.fixture
def package(monkeypatch):
    """A stand-in for wandb and trackio, whose signatures the slow tests check."""
    made = Package()
    monkeypatch.setattr("ebft.report.loggers.interface.missing", lambda package: None)
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, made)
    return made


def log_all(logger):
    logger.begin(RUN)
    logger.log_dict({"ce": 1.0}, step=7)
    logger.log_table("rollouts", COLUMNS, ROWS, step=8)
    logger.close()


TABLE = Package.Table(columns=list(COLUMNS), data=[list(row) for row in ROWS])


def test_what_wandb_gets(package, tmp_path):
    folder = tmp_path / "a" / "b"
    log_all(WandBLogger(log_dir=str(folder), group="mine", name="other"))
    assert folder.is_dir()
    assert package.calls == [
        {"dir": str(folder), "id": "abc123", "name": "other", "config": RUN.recipe,
         "resume": "allow", "project": "ebft", "group": "mine"},
        ("step",),
        ("*", "step"),
        ({"ce": 1.0, "step": 7},),
        ({"rollouts": TABLE, "step": 8},),
        "finished",
    ]  # fmt: skip


def test_what_trackio_gets(package):
    log_all(TrackioLogger(space_id="me/space"))
    assert package.calls == [
        {"name": "mine-abc123", "config": RUN.recipe, "resume": "allow", "project": "ebft",
         "space_id": "me/space"},
        ({"ce": 1.0}, 7),
        ({"rollouts": TABLE}, 8),
        "finished",
    ]  # fmt: skip


def test_a_logger_that_cannot_begin_closes_those_before_it(package, monkeypatch):
    def refuses(**_given):
        raise RuntimeError("no key")

    first = component(_component_="ebft.report.loggers.WandBLogger")
    second = component(_component_="ebft.report.loggers.TrackioLogger")
    other = Package()
    other.init = refuses
    monkeypatch.setitem(sys.modules, "trackio", other)
    with pytest.raises(UserError, match=r"metric_loggers\.1 = .*TrackioLogger: .*no key"):
        make_metric_loggers([first, second], RUN)
    assert package.calls[-1] == "finished"
