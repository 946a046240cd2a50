"""The recipe reference: every key of every recipe class, and the recipes that are shipped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pkgutil import resolve_name
from textwrap import dedent
from typing import TYPE_CHECKING

from docs.generate.markdown import block, code, docstring, table
from docs.generate.options import (
    default_of,
    is_component,
    is_list,
    is_mapping,
    kind_of,
    option_rows,
    section_of,
)
from docs.generate.parts import title_of
from ebft.config.read import recipes_folder
from ebft.config.recipe import JOBS, RecipeOptions
from ebft.parts.registry import load_registry

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

HEADER = ("key", "type", "default", "")
INTRODUCTION = """\
# Recipe keys

Every key that a recipe file can have, made from the models that validate it. A key that is not
here is an error that suggests the nearest one. A section with `_component_` is a part; its other
keys are the part's options. `key=value` on the command line sets any key, with dots between the
levels: `training.steps=100`, `evaluation.evaluators.1.n=8`.
"""


def recipes_page() -> str:
    """Every key of every kind of recipe."""
    classes = {name: resolve_name(target).schema for name, target in JOBS.items()}
    return "\n".join([INTRODUCTION, *(_recipe(name, it) for name, it in classes.items())])


def _recipe(name: str, recipe: type[RecipeOptions]) -> str:
    fields = recipe.model_fields
    plain = {key for key, field in fields.items() if not _has_section(field)}
    rows = [row for row in option_rows(recipe) if row[0].strip("`") in plain]
    sections = (
        line for key, field in fields.items() if key not in plain for line in _section(key, field)
    )
    return "\n".join(
        [f"## recipe: {name}\n", docstring(recipe), "", table(HEADER, rows), *sections]
    )


def _has_section(field: FieldInfo) -> bool:
    return bool(section_of(field) or kind_of(field) or is_component(field))


def _section(key: str, field: FieldInfo) -> Iterator[str]:
    yield f"### {key}\n"
    if options := section_of(field):
        many = "A mapping with names of your choice. " if is_mapping(field) else ""
        yield f"{many}{docstring(options)}\n"
        yield table(HEADER, option_rows(options))
        return
    many = "A list of them. " if is_list(field) else ""
    default = "" if field.is_required() else f"Default: {default_of(field)}. "
    if kind := kind_of(field):
        names = ", ".join(code(name) for name in load_registry().kinds()[kind])
        link = f"[{title_of(kind).lower()}](parts/{kind}.md)"
        what = f"`_component_` names one of the {link}: {names}."
    else:
        what = "`_component_` is the dotted path of a class, the other keys are its arguments."
    yield f"{what} {many}{default}{field.description or ''}\n"


def shipped_page() -> str:
    """Every file in recipes/, whole, below what its first comment says."""
    return "\n".join(
        [
            "# Recipes that come with ebft\n",
            "`ebft cp NAME my_recipe.yaml` copies one to change it.\n",
            *_shipped(),
        ]
    )


def _shipped() -> Iterator[str]:
    folder = recipes_folder()
    for file in sorted(folder.rglob("*.yaml")):
        name = file.relative_to(folder).with_suffix("").as_posix()
        text = file.read_text(encoding="utf-8")
        yield f"## {name}\n"
        head = re.sub(r"^# ?", "", text.partition("\n\n")[0], flags=re.M)
        for paragraph in head.split("\n\n"):
            commands = paragraph.startswith("  ")
            yield block(dedent(paragraph), "sh") if commands else f"{paragraph}\n"
        yield '??? note "' + f"recipes/{name}.yaml" + '"\n'
        yield "\n".join(f"    {line}".rstrip() for line in block(text, "yaml").splitlines()) + "\n"
