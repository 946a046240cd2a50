"""Recipes that name torchtune's schedule and loggers, with torchtune and without."""

import pytest
import torch

from ebft.checkpoints.differences import compare
from ebft.config.class_kinds import COSINE, SAME_LOGGER, SAME_SCHEDULE
from ebft.config.load import load_recipe
from ebft.errors import UserError
from tests.conftest import RECIPES

FULL = RECIPES / "ebft_full.yaml"
THEIRS = "torchtune.training.get_cosine_schedule_with_warmup"


def rates(path, steps, **arguments):
    """The learning rate of each step, and of some after the last."""
    more = "".join(f", {key}: {value}" for key, value in arguments.items())
    schedule = f"{{_component_: {path}{more}, num_training_steps: {steps}}}"
    options = load_recipe(FULL, [f"lr_scheduler={schedule}"]).options
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-5)
    scheduler, found = options.lr_scheduler.instantiate(optimizer), []
    for _ in range(steps + 3):
        found += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("path", [it for it in SAME_SCHEDULE if it != COSINE])
@pytest.mark.parametrize(
    "arguments",
    [
        {"num_warmup_steps": 3},
        {"num_warmup_steps": 0},
        {"num_warmup_steps": 7, "num_cycles": 1.5},
    ],
)
@pytest.mark.parametrize("steps", [5, 30, 997])
def test_the_rates_are_the_same_bit_for_bit(path, arguments, steps):
    pytest.importorskip(path.partition(".")[0])
    assert rates(path, steps, **arguments) == rates(COSINE, steps, **arguments)


@pytest.fixture
def without_torchtune(monkeypatch):
    monkeypatch.setattr("ebft.parts.packages.find_spec", lambda name: name != "torchtune" or None)


@pytest.mark.usefixtures("without_torchtune")
@pytest.mark.parametrize(
    ("key", "before", "now"),
    [("lr_scheduler", THEIRS, COSINE)]
    + [("metric_loggers.0", before, now) for before, now in SAME_LOGGER.items()],
)
def test_an_old_recipe_says_what_it_needs_and_what_does_the_same(key, before, now):
    section = f"{{_component_: {before}, log_dir: x, num_training_steps: 1, num_warmup_steps: 0}}"
    override = f"metric_loggers=[{section}]" if "." in key else f"{key}={section}"
    with pytest.raises(UserError) as error:
        load_recipe(FULL, [override])
    assert str(error.value) == (
        f"command line: {key}._component_ = {before}: needs torchtune, which is not installed; "
        f"run: pip install 'ebft[torchtune]', or write {now}, which does the same"
    )


@pytest.mark.usefixtures("without_torchtune")
def test_another_logger_of_torchtune():
    disk = "torchtune.training.metric_logging.DiskLogger"
    with pytest.raises(UserError) as error:
        load_recipe(FULL, [f"metric_loggers=[{{_component_: {disk}}}]"])
    assert str(error.value) == (
        f"command line: metric_loggers.0._component_ = {disk}: needs torchtune, which is not "
        "installed; run: pip install 'ebft[torchtune]'"
    )


@pytest.mark.parametrize(
    "now", ["transformers.optimization.get_cosine_schedule_with_warmup", COSINE]
)
def test_a_checkpoint_of_the_other_schedule_is_no_difference(now):
    before = {"lr_scheduler": {"_component_": THEIRS, "num_warmup_steps": 3}}
    same = {"lr_scheduler": {"_component_": now, "num_warmup_steps": 3}}
    assert compare(before, same) == ([], [], [])
    assert compare(same, before) == ([], [], [])
    other = {
        "lr_scheduler": {"_component_": now.replace("cosine", "linear"), "num_warmup_steps": 3}
    }
    assert [it.key for it in compare(before, other).mathematics] == ["lr_scheduler._component_"]


def test_torchtunes_loggers_are_used_where_it_is_installed(tmp_path):
    pytest.importorskip("torchtune")
    disk = "torchtune.training.metric_logging.DiskLogger"
    logger = f"metric_loggers=[{{_component_: {disk}, log_dir: {tmp_path}, filename: x.txt}}]"
    (found,) = load_recipe(FULL, [logger]).options.metric_loggers
    made = found.instantiate()
    made.log_dict({"ce": 2.5}, step=3)
    made.close()
    assert (tmp_path / "x.txt").read_text().strip() == "Step 3 | ce:2.5"
