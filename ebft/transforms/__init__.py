"""Transforms: features → features, between the feature map and the reward."""

from ebft.parts.hooks import Parts, hookimpl
from ebft.transforms.l2 import L2
from ebft.transforms.project import Project
from ebft.transforms.whiten_context_authors import WhitenContextAuthors
from ebft.transforms.whiten_context_paper import WhitenContextPaper
from ebft.transforms.whiten_running import WhitenRunning


@hookimpl
def register_transforms() -> Parts:
    return {
        "l2": L2,
        "project": Project,
        "whiten_context_paper": WhitenContextPaper,
        "whiten_context_authors": WhitenContextAuthors,
        "whiten_running": WhitenRunning,
    }
