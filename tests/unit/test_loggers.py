"""ebft's metric loggers write what other programs read."""

import pytest

from ebft.errors import UserError
from ebft.loggers import TensorBoardLogger, WandBLogger
from ebft.runs.progress import make_metric_loggers
from tests.unit.config.test_component import component


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


@pytest.mark.slow
def test_wandb_has_the_run_in_its_folder(tmp_path):
    """Without a network: wandb then keeps the run, to upload it later."""
    wandb = pytest.importorskip("wandb")
    logger = WandBLogger(project="some", log_dir=str(tmp_path / "kept"), mode="offline")
    run = wandb.run
    for step in (3, 4):
        logger.log_dict({"ce": step / 2}, step=step)
    assert (run.project, run.summary["ce"], run.summary["step"]) == ("some", 2.0, 4)
    logger.close()
    assert wandb.run is None
    (record,) = (tmp_path / "kept" / "wandb").glob("offline-run-*/run-*.wandb")
    assert record.stat().st_size > 0


@pytest.mark.parametrize(
    ("path", "arguments", "package"),
    [
        ("ebft.loggers.TensorBoardLogger", {"log_dir": "x"}, "tensorboard"),
        ("ebft.loggers.WandBLogger", {}, "wandb"),
    ],
)
def test_a_logger_without_its_package(path, arguments, package, monkeypatch):
    monkeypatch.setattr("ebft.optional.find_spec", lambda name: None)
    made = component(_component_=path, **arguments)
    with pytest.raises(UserError) as error:
        make_metric_loggers([made])
    assert str(error.value) == (
        f"metric_loggers.0 = {path}: cannot be made ({made.call()}: needs {package}, which is not "
        "installed; run: pip install 'ebft[logging]'); leave it out, or give it what it needs"
    )


def test_the_folder_of_wandb_is_made(tmp_path, monkeypatch):
    calls = []

    class Wandb:
        def init(self, **given):
            calls.append(given)
            return self

        def define_metric(self, *given, **more):
            calls.append((*given, *more.values()))

        def log(self, payload):
            calls.append(payload)

        def finish(self):
            calls.append("finished")

    monkeypatch.setattr("ebft.loggers.missing", lambda package: None)
    monkeypatch.setitem(__import__("sys").modules, "wandb", Wandb())
    logger = WandBLogger(log_dir=str(tmp_path / "a" / "b"), group="mine")
    logger.log_dict({"ce": 1.0}, step=7)
    logger.close()
    assert (tmp_path / "a" / "b").is_dir()
    assert calls == [
        {"project": "ebft", "dir": str(tmp_path / "a" / "b"), "group": "mine"},
        ("step",),
        ("*", "step"),
        {"ce": 1.0, "step": 7},
        "finished",
    ]
