"""The feature map meets ebft's contract, and its recipe trains."""

from pathlib import Path

from ebft_example import TokenPairs

from ebft.cli.main import main
from ebft.testing import check_feature_map, write_tiny_model, write_tiny_texts

RECIPE = Path(__file__).parents[1] / "recipe.yaml"


def test_it_keeps_to_the_contract():
    check_feature_map(TokenPairs(buckets=7))


def test_its_recipe_trains(tmp_path):
    arguments = [
        f"model.path={write_tiny_model(tmp_path / 'model')}",
        f"data.path={write_tiny_texts(tmp_path / 'texts')}",
        f"output_dir={tmp_path / 'run'}",
        "training.steps=2",
    ]
    assert main(["run", str(RECIPE), *arguments]) == 0
