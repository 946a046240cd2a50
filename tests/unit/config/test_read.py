"""Recipes that are no YAML, or whose values are not what their tags say."""

from pathlib import Path

import pytest

from ebft.config.read import read_yaml
from ebft.errors import UserError


@pytest.mark.parametrize(
    "content",
    ["seed: !!float", "seed: !!float x", "seed: !!int", "seed: !!timestamp x", "a: !!x 1"],
)
def test_tags_that_do_not_fit(tmp_path, content):
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=r"recipe.yaml: .*(cannot be read|not YAML)"):
        read_yaml(file)


def test_the_name_of_a_recipe_is_no_file_but_its_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^studies/methods: no such file; .*/methods.yaml$"):
        read_yaml(Path("studies/methods"))
