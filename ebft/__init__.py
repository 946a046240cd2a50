"""ebft: Energy-Based Fine-Tuning of language models (Jelassi et al., arXiv 2603.12248).

What a plug-in needs is here; everything else is imported from the module that owns it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ebft.errors import EngineError, NumericalError, PluginError, UserError
    from ebft.hookspecs import hookimpl
    from ebft.parts import Claim, Options, Part, Resources, part_of
    from ebft.rollout.records import Contexts, Document, Features, Rollouts, Terms

__version__ = "0.1.0"

__all__ = [
    "Claim",
    "Contexts",
    "Document",
    "EngineError",
    "Features",
    "NumericalError",
    "Options",
    "Part",
    "PluginError",
    "Resources",
    "Rollouts",
    "Terms",
    "UserError",
    "hookimpl",
    "part_of",
]

_HOMES = {
    "ebft.errors": ("EngineError", "NumericalError", "PluginError", "UserError"),
    "ebft.hookspecs": ("hookimpl",),
    "ebft.parts": ("Claim", "Options", "Part", "Resources", "part_of"),
    "ebft.rollout.records": ("Contexts", "Document", "Features", "Rollouts", "Terms"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `ebft --help` does not wait for torch.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ebft' has no attribute {name!r}")
