"""ebft: Energy-Based Fine-Tuning of language models (Jelassi et al., arXiv 2603.12248).

What a plug-in needs is here; everything else is imported from the module that owns it.
"""

from ebft.errors import NumericalError, PluginError, UserError
from ebft.hookspecs import hookimpl
from ebft.parts import Claim, Options, Part, Resources, part_of
from ebft.rollout.records import Contexts, Document, Features, Rollouts, Terms

__version__ = "0.1.0"

__all__ = [
    "Claim",
    "Contexts",
    "Document",
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
