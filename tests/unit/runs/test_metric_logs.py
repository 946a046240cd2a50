"""The files that metric loggers have written are removed or cut, and no others are."""

import pytest

from ebft.config.component import Component
from ebft.runs.metric_logs import DISK_LOGGER, STEP_LOG, TENSORBOARD, cut_disk_logs, remove_logs


@pytest.mark.parametrize("before", ["run", "moved/from"])
def test_what_loggers_have_written_and_nothing_else(tmp_path, before):
    output, logs = tmp_path / before, tmp_path / "run" / "logs"
    loggers = [
        {"_component_": DISK_LOGGER, "log_dir": f"{output}/logs", "filename": None},
        {"_component_": DISK_LOGGER, "log_dir": f"{output}/logs", "filename": "mine[1].log"},
        {"_component_": TENSORBOARD, "log_dir": f"{output}/logs"},
        {"_component_": STEP_LOG, "file": f"{output}/logs/steps.jsonl"},
        {"_component_": STEP_LOG, "file": f"{output}/../outside.jsonl"},
        {"_component_": "somebody.elses.Logger", "log_dir": f"{output}/logs", "file": "kept.txt"},
    ]
    ours = ["log_1700000000.txt", "mine[1].log", "run_0/events.out.tfevents.1", "steps.jsonl"]
    others = ["slurm-12.out", "log_12.txt", "mine1.log", "steps.csv", "kept.txt"]
    for name in [*ours, *others]:
        (logs / name).parent.mkdir(parents=True, exist_ok=True)
        (logs / name).write_text("Step 1 | ce:0.1\n")
    outside = tmp_path / "outside.jsonl"
    outside.touch()
    remove_logs({"output_dir": str(output), "metric_loggers": loggers}, tmp_path / "run")
    left = sorted(path.relative_to(logs).as_posix() for path in logs.rglob("*") if path.is_file())
    assert left == sorted(others)
    assert outside.exists()


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"output_dir": "run", "metric_loggers": None},
        {"output_dir": "run", "metric_loggers": ["no", {"_component_": DISK_LOGGER}]},
    ],
)
def test_a_recipe_that_ebft_has_not_written(tmp_path, recipe):
    (tmp_path / "log_1700000000.txt").touch()
    remove_logs(recipe, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("filename", "cut"), [(None, "log_1700000000.txt"), ("mine[1].log", "mine[1].log")]
)
def test_only_what_the_logger_has_written_is_cut(tmp_path, filename, cut):
    written = "Step 1 | ce:0.1\nStep 2 | ce:0.1\nStep 3 | c"
    files = ["log_1700000000.txt", "log_train.txt", "log_12.txt", "mine[1].log", "mine1.log"]
    for name in files:
        (tmp_path / name).write_text(written)
    logger = Component(DISK_LOGGER, {"log_dir": str(tmp_path), "filename": filename})
    cut_disk_logs([logger], within=tmp_path, after=1)
    assert (tmp_path / cut).read_text() == "Step 1 | ce:0.1\n"
    assert {(tmp_path / name).read_text() for name in files if name != cut} == {written}
