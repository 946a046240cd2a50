"""A page for each kind of part: what is registered, with its options and its claim."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from textwrap import indent

from docs.generate.markdown import code, docstring, table
from docs.generate.options import option_rows
from ebft.cli.ls import claim_of
from ebft.parts import hooks as hookspecs
from ebft.parts.part import Part
from ebft.parts.registry import KINDS, Registered, load_registry

HEADER = ("option", "type", "default", "")


def parts_pages() -> dict[str, str]:
    """The pages by their paths."""
    kinds = load_registry().kinds()
    return {page_of(kind): kind_page(kind, kinds[kind]) for kind in KINDS}


def page_of(kind: str) -> str:
    """Where the page of a kind is."""
    return f"reference/parts/{kind}.md"


def title_of(kind: str) -> str:
    """What the hook's docstring calls them: data → Data sources."""
    return (getattr(hookspecs, f"register_{kind}").__doc__ or kind).partition(":")[0]


def kind_page(kind: str, parts: Mapping[str, Registered]) -> str:
    """What the kind is, then every part of it."""
    hook = inspect.getdoc(getattr(hookspecs, f"register_{kind}")) or ""
    named = (part_section(name, registered.part) for name, registered in parts.items())
    return "\n".join([f"# {title_of(kind)}\n", hook, "", *named])


def part_section(name: str, part: type[Part]) -> str:
    """One part: its docstring, whether it keeps the gradient unbiased, its options."""
    lines = [f"## {name}\n", docstring(part), ""]
    if claim := claim_of(part):
        lines += ['!!! quote ""\n', indent(claim, "    "), ""]
    lines += [table(HEADER, option_rows(part)) or "It has no options.\n"]
    lines += [f"Source: {code(part.__module__.replace('.', '/') + '.py')}\n"]
    return "\n".join(lines)
