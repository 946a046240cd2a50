import os

# Before torch: its threads would spin while another test process has the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import logging
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Every shape in these modules' annotations is checked against every tensor that the tests pass.
CHECKED = ["baselines", "features.bag_of_tokens", "features.concat",
           "features.hidden_states", "features.next_token_log_probs",
           "features.pooling", "models.attention", "models.branch_attention",
           "models.log_probs", "models.tree_log_probs", "plans",
           "rewards.similarity", "rewards.token_overlap", "rollout", "samplers.draw",
           "samplers.hf_generate", "scoring", "training.losses",
           "training.objective", "transforms"]  # fmt: skip
for module in CHECKED:  # a name that is none would be passed over in silence
    path = Path(__file__).parents[1].joinpath("ebft", *module.split("."))
    assert path.is_dir() or path.with_suffix(".py").is_file(), module
install_import_hook([f"ebft.{module}" for module in CHECKED], "beartype.beartype")

settings.register_profile(
    "ebft",
    deadline=None,  # shared machines: time says nothing about correctness
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
# The same examples each time, and none that an earlier process kept.
settings.register_profile("mutants", settings.get_profile("ebft"), derandomize=True)
settings.load_profile("ebft")

# A shell's background jobs inherit that SIGINT is ignored, and so would the runs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A random model of four small layers in a folder that `from_pretrained` loads."""
    from ebft.testing import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def python_folder(tmp_path_factory) -> Path:
    """A dozen .py files in letters that the tiny model's tokenizer knows."""
    from ebft.testing import write_tiny_texts

    return write_tiny_texts(tmp_path_factory.mktemp("python"))


@pytest.fixture
def tiny_run(tiny_model, python_folder, tmp_path):
    """`ebft run` arguments that make recipes/ebft_full.yaml a run of seconds, in `tmp_path/run`."""

    def arguments(*more: str, recipe: str = "ebft_full", without: str = "nothing") -> list[str]:
        overrides = [
            f"model.path={tiny_model}",
            f"data.path={python_folder}",
            "data.held_out=0.25",
            "documents.length=40",
            "plan.start=8",
            "plan.stride=8",
            "plan.rollout_length=4",
            "training.steps=3",
            "training.documents_per_step=4",
            "training.micro_batch=2",
            "evaluation.documents=3",
            "evaluation.every=2",
            "checkpoint.every=2",
            f"output_dir={tmp_path / 'run'}",
        ]
        kept = [override for override in overrides if not override.startswith(without)]
        return ["run", str(RECIPES / f"{recipe}.yaml"), *kept, *more]

    return arguments


@pytest.fixture
def ebft(capsys):
    """Runs an `ebft` command line in this process; returns its status, output and errors."""
    from ebft.cli.main import main

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as stop:  # argparse
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    yield run
    logging.getLogger("ebft").handlers = []
    logging.getLogger("ebft").propagate = True
