"""A tiny random decoder and documents for it: those of `ebft.testing`, and what only we need."""

import torch

from ebft.parts.part import Resources
from ebft.rollout.micro_batches import pack
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
    "at_a_time",
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


def tiny_resources(policy, *, seed: int = 0, eos: int = 1, base=None) -> Resources:
    return Resources(
        policy=policy,
        tokenizer=Eos(eos),
        load_base=lambda: policy if base is None else base,
        device=torch.device("cpu"),
        precision=torch.float32,
        seed=seed,
    )


def at_a_time(documents, contexts):
    """The contexts in micro-batches of so many documents."""
    return contexts.divided(pack([1] * len(contexts.documents), documents))


def trained_on(rollouts, advantages, *, micro_batch=100):
    """What a step is trained on: contexts, and rollouts with advantages from nowhere."""
    contexts, terms = at_a_time(micro_batch, rollouts.contexts), Terms.of_unary(advantages)
    return contexts, Scored(rollouts, None, terms, advantages)
