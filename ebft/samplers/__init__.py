"""Samplers: contexts → rollouts."""

from ebft.hookspecs import Parts, hookimpl
from ebft.samplers.hf_generate import HfGenerate
from ebft.samplers.hf_tree import HfTree


@hookimpl
def register_samplers() -> Parts:
    return {"hf_tree": HfTree, "hf_generate": HfGenerate}
