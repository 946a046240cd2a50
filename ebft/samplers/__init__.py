"""Samplers: contexts → rollouts."""

from ebft.parts.hooks import Parts, hookimpl
from ebft.samplers.hf_generate import HfGenerate
from ebft.samplers.hf_tree import HfTree


@hookimpl
def register_samplers() -> Parts:
    return {"hf_tree": HfTree, "hf_generate": HfGenerate}
