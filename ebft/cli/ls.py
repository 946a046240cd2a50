"""`ebft ls`: lists every registered part with its options, and the recipes that come with ebft."""

from __future__ import annotations

import argparse
import inspect
import shutil
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING

from ebft.cli.types import field_type, nested_options, yaml_value
from ebft.console import say
from ebft.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ebft.parts.part import Part
    from ebft.parts.registry import Registered

EPILOG = """\
examples:
  ebft ls                        everything
  ebft ls rewards                one kind
  ebft ls feature_matching       one part
  ebft ls samplers --plugin my_sampler.py
"""
RECIPES = "recipes"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `ls [WHAT] [--plugin PLUGIN]`."""
    parser = subparsers.add_parser(
        "ls",
        help="list the parts that a recipe can name, with their options",
        description="Lists the recipes that come with ebft, and every part that a recipe's "
        "`_component_` can name: its origin, whether it biases the gradient, and its options.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "wanted",
        metavar="WHAT",
        nargs="?",
        help="a kind, a part's name, or recipes; default: everything",
    )
    parser.add_argument(
        "--plugin",
        metavar="PLUGIN",
        action="append",
        default=[],
        help="also load this plug-in, a module name or a .py file; can be repeated",
    )
    parser.set_defaults(command=ls)


def ls(arguments: argparse.Namespace) -> int:
    """Prints the list. Raises `UserError` if WHAT is neither a kind nor a part."""
    from ebft.errors import suggest
    from ebft.parts.registry import KINDS, load_registry

    wanted = arguments.wanted
    width = max(shutil.get_terminal_size().columns, 60)
    if wanted in (None, RECIPES):
        say(*_recipes())
    if wanted == RECIPES:
        return 0
    kinds = load_registry(arguments.plugin).kinds()
    if wanted is None or wanted in KINDS:
        shown = {kind: kinds[kind] for kind in ([wanted] if wanted else KINDS)}
    else:
        shown = {k: {wanted: named[wanted]} for k, named in kinds.items() if wanted in named}
    if not shown:
        known = [RECIPES, *KINDS, *(name for named in kinds.values() for name in named)]
        raise UserError(f"no part and no kind is named {wanted!r}{suggest(wanted, known)}")
    for kind, named in shown.items():
        say(*_kind(kind, named, width))
    return 0


def _recipes() -> Iterator[str]:
    from ebft.config.read import shipped_recipes

    yield RECIPES
    recipes = shipped_recipes()
    width = max(map(len, recipes))
    for name, path in recipes.items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        yield f"  {name:{width}} {first.removeprefix('#').strip()}"
    yield ""


def _kind(kind: str, named: Mapping[str, Registered], width: int) -> Iterator[str]:
    yield kind
    for name, registered in named.items():
        yield from _part(name, registered, width)
    yield ""


def _part(name: str, registered: Registered, width: int) -> Iterator[str]:
    part = registered.part
    yield f"  {name}    from {registered.origin}"
    summary = " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split())
    yield from wrap(summary, width, initial_indent="    ", subsequent_indent="    ")
    if claim := claim_of(part):
        yield from wrap(claim, width, initial_indent="    ", subsequent_indent=" " * 14)
    yield from _options(part, width, indent="    ")


def _options(options: type[BaseModel], width: int, *, indent: str) -> Iterator[str]:
    hang = indent + " " * 6
    for option, field in options.model_fields.items():
        given = field.get_default(call_default_factory=True)
        default = "" if field.is_required() else f" = {yaml_value(given)}"
        yield f"{indent}- {option}: {field_type(field)}{default}"
        yield from wrap(field.description or "", width, initial_indent=hang, subsequent_indent=hang)
        for nested in nested_options(field.annotation):
            yield from _options(nested, width, indent=hang)


def claim_of(part: type[Part]) -> str:
    """Whether the part keeps the gradient unbiased, and why; empty if it makes no claim."""
    from ebft.parts.part import Part

    if part.claim is Part.claim:
        return ""
    if any(field.is_required() for field in part.model_fields.values()):
        return "unbiased: depends on its options"
    claim = part().claim()
    if claim is None:
        return ""
    return f"unbiased: {'yes' if claim.unbiased else 'no'}, {claim.why}"
