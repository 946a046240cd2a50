"""What a recipe names by its dotted path: a class or function, and where it may come from."""

from __future__ import annotations

from collections.abc import Collection
from pkgutil import resolve_name
from typing import Any

from ebft.errors import suggest
from ebft.parts.modules import reason
from ebft.parts.packages import missing

LIBRARIES = ("ebft", "torch", "torchao", "torchtune", "transformers")
"""Packages that any recipe may name things of; all else has to be in its `plugins`."""


def importable_in(context: Any) -> Collection[str] | None:
    """What a validation's context lets dotted paths lead into; None, which is all, without one:
    a path that stands in a program is as good as an import there."""
    registry = (context or {}).get("registry")
    return None if registry is None else registry.importable


def find_named(path: str, importable: Collection[str] | None) -> Any:
    """What `package.module.name` or `package.module:name` names.

    To import a module is to run it, so only those in `importable` are, and what is inside of them;
    None allows all. Raises `ValueError` for another one, for a path that leads nowhere, and for one
    that leads into an optional package that is not installed.
    """
    dotted = path.replace(":", ".")
    if importable is not None and not any(f"{dotted}.".startswith(f"{it}.") for it in importable):
        module = path.partition(":")[0] if ":" in path else path.rpartition(".")[0]
        raise ValueError(
            "is not imported, for the recipe does not list its module; if you trust that, add "
            f"{module} to plugins, as a module and not as a .py file"
        )
    if (lacking := missing(dotted.partition(".")[0])) is not None:
        raise ValueError(lacking)
    try:
        return resolve_name(path)
    except AttributeError as error:
        hint = suggest(str(error.name), [it for it in dir(error.obj) if not it.startswith("_")])
        raise ValueError(f"cannot be imported: {error}{hint}") from error
    except (ImportError, ValueError) as error:
        raise ValueError(f"cannot be imported: {error}") from error
    except Exception as error:  # its module is somebody else's, and may raise anything
        raise ValueError(f"cannot be imported: {reason(error)}") from error
