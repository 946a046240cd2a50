"""The references that are made of the code have everything in them."""

from pkgutil import resolve_name

import pytest

from docs.generate.hooks import hooks_page
from docs.generate.options import option_rows, section_of
from docs.generate.parts import parts_pages
from docs.generate.recipes import recipes_page, shipped_page
from docs.generate.root_files import as_page
from ebft.cli.ls import claim_of
from ebft.config.read import shipped_recipes
from ebft.config.recipe import JOBS
from ebft.parts import hooks as hookspecs
from ebft.parts.registry import load_registry

PARTS = [
    (kind, name, registered.part)
    for kind, parts in load_registry().kinds().items()
    for name, registered in parts.items()
]
CLASSES = [resolve_name(target).schema for target in JOBS.values()]


@pytest.mark.parametrize("recipe", CLASSES, ids=list(JOBS))
def test_every_key_of_a_recipe_is_there(recipe):
    page = recipes_page()
    for key, field in recipe.model_fields.items():
        assert f"\n### {key}\n" in page or f"\n| `{key}` | " in page
        if section := section_of(field):
            for name, *_ in option_rows(section):
                assert f"\n| {name} | " in page


@pytest.mark.parametrize("options", [*CLASSES, *(part for *_, part in PARTS)])
def test_every_option_says_what_it_is(options):
    described = {key: description for key, *_, description in option_rows(options)}
    parts = {f"`{key}`" for key, field in options.model_fields.items() if not field.description}
    if options in CLASSES:  # a section is described by its model, its page or its hook
        described = {key: text for key, text in described.items() if key not in parts}
    assert all(described.values()), described


@pytest.mark.parametrize(("kind", "name", "part"), PARTS, ids=[f"{k}-{n}" for k, n, _ in PARTS])
def test_every_part_is_there_with_its_claim(kind, name, part):
    page = parts_pages()[f"reference/parts/{kind}.md"]
    _, _, section = page.partition(f"\n## {name}\n")
    section = section.partition("\n## ")[0]
    assert claim_of(part) in section
    for option, *_ in option_rows(part):
        assert f"\n| {option} | " in section


def test_every_hook_and_every_recipe_is_there():
    for hook in vars(hookspecs):
        if hook.startswith("register_"):
            assert f"\n## {hook}\n" in hooks_page()
    for name in shipped_recipes():
        assert f"\n## {name}\n" in shipped_page()


def test_links_of_the_readme_lead_to_pages():
    text = as_page("[a](docs/how.md#x) ![b](docs/images/b.png) [c](ebft/x.py) [d](https://e)",
                   "README.md")  # fmt: skip
    assert text == "[a](how.md#x) ![b](images/b.png) c (`ebft/x.py`) [d](https://e)"
    text = as_page("[up](../../README.md) [here](../../docs/how.md)", "plugins/ebft-vllm/README.md")
    assert text == "[up](../index.md) [here](../how.md)"
    text = as_page("[a](../plugins/ebft-vllm) [b](hooks.md#x)", "docs/plugins.md")
    assert text == "[a](plugins/ebft-vllm.md) [b](hooks.md#x)"
