"""Sampler `vllm`: rollouts from a vLLM engine, synced in memory and probed after every sync."""

from ebft.parts.hooks import Parts, hookimpl
from ebft_vllm.sampler import Vllm


@hookimpl
def register_samplers() -> Parts:
    return {"vllm": Vllm}
