"""The hook reference: what a plug-in may implement, made from ebft/parts/hooks.py."""

from __future__ import annotations

import inspect
import re

from docs.generate.markdown import block, docstring
from docs.generate.parts import title_of
from ebft.parts import hooks as hookspecs
from ebft.parts import interfaces
from ebft.parts.registry import KINDS

INTRODUCTION = """\
# Hook reference

The hooks that a plug-in can implement. Each returns `{name: class}`, the class a subclass of
`ebft.Part`, and is called once, when a recipe is loaded. [Hooks](../hooks.md) says
how ebft loads a plug-in.
"""


def hooks_page() -> str:
    """Every hook with the interface that its parts build to."""
    return "\n".join([INTRODUCTION, *map(_hook, KINDS)])


def _hook(kind: str) -> str:
    hook = getattr(hookspecs, f"register_{kind}")
    text = docstring(hook)
    built = re.search(r"build to an? `(\w+)`", text)
    assert built, f"register_{kind}: its docstring says which interface a part builds to"
    interface = getattr(interfaces, built[1])
    return "\n".join(
        [
            f"## register_{kind}\n",
            text,
            "",
            block(inspect.getsource(interface).replace("@runtime_checkable\n", ""), "python"),
            f"Registered parts: [{title_of(kind).lower()}](parts/{kind}.md).\n",
        ]
    )
