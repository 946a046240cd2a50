"""Every file in recipes/ parses, validates, builds, and survives being written out and read."""

from importlib.util import find_spec

import pytest
import torch

from ebft.config.dump import resolved_yaml
from ebft.config.load import load_recipe, read_yaml
from ebft.interfaces import Baseline, DataSource, Evaluator, FeatureMap, Plan, Reward, Sampler
from ebft.training.options import FineTuneOptions
from tests.conftest import RECIPES
from tests.tiny import plain_policy, tiny_resources

FILES = sorted(RECIPES.rglob("*.yaml"))


def needs(file):
    """The installable plug-in that a recipe names and that is not here, if any."""
    named = read_yaml(file).get("plugins", [])
    missing = [name for name in named if not name.endswith(".py") and find_spec(name) is None]
    return missing[0] if missing else None


@pytest.fixture(params=FILES, ids=lambda file: file.relative_to(RECIPES).as_posix())
def recipe(request, tmp_path):
    if missing := needs(request.param):
        pytest.skip(f"needs the plug-in {missing}, whose own tests build this recipe")
    return load_recipe(request.param, [f"output_dir={tmp_path}"])


def test_it_builds(recipe):
    options, policy = recipe.options, plain_policy()
    resources = tiny_resources(policy)
    interfaces = {
        "data": DataSource,
        "plan": Plan,
        "sampler": Sampler,
        "feature_map": FeatureMap,
        "reward": Reward,
        "baseline": Baseline,
    }
    for key, part in options.parts().items():
        built = part.build(resources)
        if key in interfaces:
            assert isinstance(built, interfaces[key]), key
    for evaluator in options.evaluation.evaluators:
        assert isinstance(evaluator.build(resources), Evaluator)
    if not isinstance(options, FineTuneOptions):
        return
    optimizer = options.optimizer.instantiate(policy.parameters())
    assert isinstance(optimizer, torch.optim.Optimizer)
    if options.lr_scheduler is not None:
        options.lr_scheduler.instantiate(optimizer)
    for logger in options.metric_loggers:
        logger.instantiate().close()


def test_it_says_everything_when_written_out(recipe, tmp_path):
    file = tmp_path / "resolved.yaml"
    file.write_text(resolved_yaml(recipe.options, recipe.registry))
    again = load_recipe(file)
    assert again.options == recipe.options
    assert resolved_yaml(again.options, again.registry) == file.read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(RECIPES).as_posix())
def test_it_says_what_it_is_and_how_to_run_it(file):
    first, *rest = file.read_text().splitlines()
    assert first.startswith("# ")
    assert any(f"tune run recipes/{file.relative_to(RECIPES)}" in line for line in rest)


def test_recipes_that_need_a_plug_in_name_one_of_this_repository():
    packages = {folder.parent.name for folder in RECIPES.parent.glob("plugins/*/*/__init__.py")}
    for file in FILES:
        for name in read_yaml(file).get("plugins", []):
            assert name in packages, f"{file}: {name}"
