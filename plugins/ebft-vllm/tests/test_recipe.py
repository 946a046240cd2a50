"""The recipe of this plug-in; the tests of ebft skip it if the plug-in is not installed."""

from ebft_vllm import Vllm

from ebft.config.dump import resolved_yaml
from ebft.config.load import load_recipe
from tests.conftest import RECIPES


def test_the_recipe_is_valid_and_says_everything_when_written_out(tmp_path):
    recipe = load_recipe(RECIPES / "ebft_vllm.yaml", [f"output_dir={tmp_path}"])
    assert isinstance(recipe.options.sampler, Vllm)
    assert recipe.options.training.steps >= 20
    file = tmp_path / "resolved.yaml"
    file.write_text(resolved_yaml(recipe.options, recipe.registry))
    assert load_recipe(file).options == recipe.options
