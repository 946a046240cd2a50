"""ebft: Energy-Based Fine-Tuning of language models (Jelassi et al., arXiv 2603.12248).

The Python interface and what a plug-in needs are here; everything else is imported from the module
that owns it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ebft.parts.version import __version__ as __version__

if TYPE_CHECKING:
    from ebft.api.finetune import evaluate, finetune
    from ebft.api.results import Run, compare
    from ebft.config.recipe import Job, RecipeOptions
    from ebft.errors import (
        EngineError,
        NumericalError,
        PluginError,
        SamplerMismatchError,
        UserError,
    )
    from ebft.evaluation.labelled import LabelledPart
    from ebft.options import Options
    from ebft.parts.hooks import hookimpl
    from ebft.parts.kinds import (
        BaselinePart,
        EvaluatorPart,
        FeatureMapPart,
        RewardPart,
        SamplerPart,
    )
    from ebft.parts.measurements import CorpusMeasurement, Measurement
    from ebft.parts.part import Claim, Part, Resources, part_of
    from ebft.parts.splits import Example, Message, Splits
    from ebft.parts.stateful import Stateful
    from ebft.rollout.contexts import make_contexts, make_rollouts
    from ebft.rollout.records import Contexts, Document, Features, Rollouts, Terms
    from ebft.rollout.streams import context_seeds, uniforms
    from ebft.verifiers.attempts import Attempt


__all__ = [
    "Attempt",
    "BaselinePart",
    "Claim",
    "Contexts",
    "CorpusMeasurement",
    "Document",
    "EngineError",
    "EvaluatorPart",
    "Example",
    "FeatureMapPart",
    "Features",
    "Job",
    "LabelledPart",
    "Measurement",
    "Message",
    "NumericalError",
    "Options",
    "Part",
    "PluginError",
    "RecipeOptions",
    "Resources",
    "RewardPart",
    "Rollouts",
    "Run",
    "SamplerMismatchError",
    "SamplerPart",
    "Splits",
    "Stateful",
    "Terms",
    "UserError",
    "compare",
    "context_seeds",
    "evaluate",
    "finetune",
    "hookimpl",
    "make_contexts",
    "make_rollouts",
    "part_of",
    "uniforms",
]

_HOMES = {
    "ebft.api.finetune": ("evaluate", "finetune"),
    "ebft.api.results": ("Run", "compare"),
    "ebft.config.recipe": ("Job", "RecipeOptions"),
    "ebft.errors": (
        "EngineError",
        "NumericalError",
        "PluginError",
        "SamplerMismatchError",
        "UserError",
    ),
    "ebft.evaluation.labelled": ("LabelledPart",),
    "ebft.parts.hooks": ("hookimpl",),
    "ebft.parts.kinds": (
        "BaselinePart",
        "EvaluatorPart",
        "FeatureMapPart",
        "RewardPart",
        "SamplerPart",
    ),
    "ebft.parts.measurements": ("CorpusMeasurement", "Measurement"),
    "ebft.parts.splits": ("Example", "Message", "Splits"),
    "ebft.parts.stateful": ("Stateful",),
    "ebft.options": ("Options",),
    "ebft.parts.part": ("Claim", "Part", "Resources", "part_of"),
    "ebft.rollout.contexts": ("make_contexts", "make_rollouts"),
    "ebft.rollout.records": ("Contexts", "Document", "Features", "Rollouts", "Terms"),
    "ebft.rollout.streams": ("context_seeds", "uniforms"),
    "ebft.verifiers.attempts": ("Attempt",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `ebft --help` does not wait for torch.
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ebft' has no attribute {name!r}")
