"""A run builds its plan once: what the plan remembers is the same wherever it is asked."""

import pytest

from tests.conftest import RECIPES

PLUGIN = '''
from pathlib import Path

import ebft
from ebft import Example, Splits
from ebft.plans.completion import Completion

class Texts(ebft.Part):
    """Prompts to train on, held out, and out of distribution."""

    def __call__(self):
        def texts(letters):
            return [Example(x, f"{x}b = {x}" * 6, f"{x} =") for x in letters]

        return Splits(texts("abcdef"), texts("gh"), texts("ij"))

class Counted(Completion):
    """`Completion`; adds a line to a file for each time that it is built."""

    file: Path

    def build(self, resources):
        with self.file.open("a") as file:
            file.write("built\\n")
        return super().build(resources)

@ebft.hookimpl
def register_data():
    return {"texts": Texts}

@ebft.hookimpl
def register_plans():
    return {"counted": Counted}
'''


@pytest.fixture
def built(tmp_path):
    return tmp_path / "built.txt"


@pytest.fixture
def counted(tmp_path, built):
    """Overrides with the plan that is counted, and texts that make all three sets."""
    plugin = tmp_path / "counted.py"
    plugin.write_text(PLUGIN)
    measured = "evaluation.evaluators=[{_component_: cross_entropy}]"
    plan = ["plan=counted", f"plan.file={built}", "plan.rollout_length=4"]
    return [f"plugins=[{plugin}]", "data=texts", *plan, measured]


def test_in_a_run_that_trains_and_in_one_that_goes_on(ebft, tiny_run, counted, built):
    arguments = tiny_run(*counted, "training.steps=2", without="plan.")
    arguments = [word for word in arguments if not word.startswith("data.")]
    assert ebft(*arguments)[0] == 0
    assert built.read_text() == "built\n"
    status, _, err = ebft(*arguments, "training.steps=3", "checkpoint.resume=auto")
    assert status == 0, err
    assert built.read_text() == "built\n" * 2


def test_in_one_that_only_measures(ebft, tiny_model, counted, built, tmp_path):
    status, _, err = ebft(
        "eval", str(RECIPES / "evaluate.yaml"), f"model.path={tiny_model}", *counted,
        "documents.length=40", f"output_dir={tmp_path / 'eval'}",
    )  # fmt: skip
    assert status == 0, err
    assert "out-of-distribution: 2 documents" in err
    assert built.read_text() == "built\n"
