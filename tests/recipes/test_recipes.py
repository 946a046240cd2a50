"""Every file in recipes/ parses, validates, builds, and survives being written out and read.

Studies are tested by what they plan; validating one validates its runs.
"""

from importlib.machinery import PathFinder

import pytest
import torch
import yaml

from ebft.config.dump import resolved_yaml
from ebft.config.load import load_recipe
from ebft.config.read import read_recipe
from ebft.models.cost import DocumentTree, flops
from ebft.parts.interfaces import Baseline, DataSource, Evaluator, FeatureMap, Plan, Reward, Sampler
from ebft.parts.registry import default_registry
from ebft.plans.strided import Strided
from ebft.runs.estimate import model_shape
from ebft.runs.options import FineTuneOptions
from ebft.study.dry_run import CPU_GFLOPS
from ebft.study.plan import plan_arms
from tests.conftest import RECIPES
from tests.tiny import plain_policy, tiny_documents, tiny_resources

FILES = sorted(RECIPES.rglob("*.yaml"))
STUDIES = [file for file in FILES if read_recipe(file).tree.get("recipe") == "study"]
SECONDS_TO_START = 40
"""Of a run on the embedded model: imports, weights, tokenising the standard library."""


def needs(file):
    """The installable plug-in that a recipe names and that is not here, if any."""
    named = read_recipe(file).tree.get("plugins", [])
    # Not importlib's own find_spec, for which a module that another test has imported is there.
    packages = [name for name in named if not name.endswith(".py")]
    missing = [name for name in packages if PathFinder.find_spec(name) is None]
    return missing[0] if missing else None


@pytest.fixture(
    params=[file for file in FILES if file not in STUDIES],
    ids=lambda file: file.relative_to(RECIPES).as_posix(),
)
def recipe(request, tmp_path):
    if missing := needs(request.param):
        pytest.skip(f"needs the plug-in {missing}, whose own tests build this recipe")
    return load_recipe(request.param, [f"output_dir={tmp_path}"])


def test_it_builds(recipe):
    options, policy = recipe.options, plain_policy()
    if options.plugins and (missing := options.missing_for_parts()):
        pytest.skip(f"{missing[0]}; the plug-in's own tests run this recipe")
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
        for name in read_recipe(file).tree.get("plugins", []):
            assert name in packages, f"{file}: {name}"


@pytest.fixture(params=STUDIES, ids=lambda file: file.relative_to(RECIPES).as_posix())
def study(request):
    return load_recipe(request.param).options


def test_a_study_judges_all_its_runs_alike(study):
    planned = plan_arms(study)
    assert len(planned) > 1
    assert study.evaluation is not None, "the study says how its runs are judged"
    first, *others = (arm.options for arm in planned)
    for options in others:
        assert options.evaluation == first.evaluation
        # The same held-out documents, whatever a run's plan needs.
        assert (options.data, options.documents) == (first.data, first.documents)
    if isinstance(first.plan, Strided):
        longest = max(arm.options.plan.shortest_document for arm in planned)
        assert first.documents.shortest >= longest


def test_a_study_says_everything_when_written_out(study):
    registry = default_registry()
    again = yaml.safe_load(resolved_yaml(study, registry))
    assert type(study).model_validate(again, context={"registry": registry}) == study


@pytest.mark.parametrize("name", ["reward_terms", "feature_layers"])
def test_the_ready_ablations_fit_in_ninety_minutes(name):
    """By the cost model at what two cores do, evaluations and start-up counted."""
    study = load_recipe(RECIPES / "ablations" / f"{name}.yaml").options
    seconds = 0.0
    for arm in plan_arms(study):
        evaluation, length = arm.options.evaluation, arm.options.documents.length
        _, matching, *_ = evaluation.evaluators
        anchors = matching.plan(tiny_documents([length])).anchor.tolist()
        tree = DocumentTree(length, anchors, matching.n, matching.plan.rollout_length)
        model = model_shape(arm.options.model)
        work = flops(model, tree)
        each = work.sampling + work.features + 2 * model.parameters * length
        measured = 2 * evaluation.documents * each / 1e12
        seconds += (arm.tflop() + measured) / (CPU_GFLOPS / 1000) + SECONDS_TO_START
    assert seconds * len(study.seeds) / 60 < 90
