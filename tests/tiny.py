"""A tiny random decoder and documents for it: those of `ebft.testing`, and what only we need."""

import torch

from ebft.parts import Resources
from ebft.rollout.records import Scored, Terms
from ebft.testing.tiny import (
    CONFIG,
    VOCAB,
    plain_policy,
    tiny_documents,
    tiny_policy,
    tiny_tokenizer,
)

__all__ = [
    "CONFIG",
    "VOCAB",
    "Eos",
    "plain_policy",
    "tiny_documents",
    "tiny_policy",
    "tiny_resources",
    "tiny_tokenizer",
    "trained_on",
]


class Eos:
    """As much of a tokenizer as a sampler needs."""

    def __init__(self, eos_token_id: int) -> None:
        self.eos_token_id = eos_token_id


def tiny_resources(
    policy, *, micro_batch: int = 2, seed: int = 0, eos: int = 1, base=None
) -> Resources:
    return Resources(
        policy=policy,
        tokenizer=Eos(eos),
        load_base=lambda: policy if base is None else base,
        device=torch.device("cpu"),
        precision=torch.float32,
        seed=seed,
        micro_batch=micro_batch,
    )


def trained_on(rollouts, advantages):
    """What a step is trained on: contexts, and rollouts with advantages from nowhere."""
    terms = Terms.of_unary(advantages)
    return rollouts.contexts, Scored(rollouts, None, terms, advantages)
