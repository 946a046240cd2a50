"""Converts contexts to jobs of the engine, and its samples to rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ebft.errors import EngineError, UserError
from ebft.rollout.contexts import make_rollouts
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.streams import context_seeds
from ebft_vllm.messages import Job, Request, Sample, Samples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def make_job(
    contexts: Contexts, *, n: int, temperature: float, eos: int, seed: int, step: int
) -> Job:
    """Returns one request for each context, with its seed from (seed, step, document, anchor)."""
    rows = contexts.tokens.tolist()
    seeds = context_seeds(contexts, seed=seed, step=step).tolist()
    requests = [
        Request(rows[row][:anchor], context_seed)
        for row, anchor, context_seed in zip(
            contexts.row.tolist(), contexts.anchor.tolist(), seeds, strict=True
        )
    ]
    stop = eos if contexts.stop_at_eos else None
    return Job(requests, n, contexts.rollout_length, temperature, stop)


def check_lengths(contexts: Contexts, limit: int | None) -> None:
    """Raises `UserError` naming the document whose context leaves no room for a rollout.

    `limit` is the most tokens of the two together; None: no limit.
    """
    if limit is not None and contexts.reach > limit:
        length = contexts.rollout_length
        raise UserError(
            f"sampler.max_length = {limit}: document {contexts.farthest.name} has a context of "
            f"{contexts.reach - length} tokens and rollouts of {length}; set sampler.max_length="
            f"{contexts.reach}, or make documents.length smaller"
        )


def rollouts_of(
    contexts: Contexts,
    samples: Samples,
    *,
    n: int,
    tokenizer: PreTrainedTokenizerBase,
    temperature: float,
) -> Rollouts:
    """Returns the engine's samples as rollouts.

    Raises `EngineError` if a context does not have n samples, or a sample has not G tokens and does
    not end with end-of-sequence where the contexts allow it.
    """
    P, G, device = len(contexts), contexts.rollout_length, contexts.tokens.device
    if [len(group) for group in samples] != [n] * P:
        raise EngineError(f"the vLLM engine did not return {n} samples for each of {P} contexts")
    end = tokenizer.eos_token_id if contexts.stop_at_eos else None
    padded = [_padded(sample, G, end) for group in samples for sample in group]
    tokens, log_probs = zip(*padded, strict=True)
    return make_rollouts(
        contexts,
        torch.tensor(tokens, device=device).view(P, n, G),
        torch.tensor(log_probs, dtype=torch.float32, device=device).view(P, n, G),
        tokenizer=tokenizer,
        temperature=temperature,
    )


def _padded(sample: Sample, G: int, end: int | None) -> tuple[list[int], list[float]]:
    length = len(sample.tokens)
    ended = 0 < length < G and sample.tokens[-1] == end
    if length != G and not ended:
        raise EngineError(
            f"the vLLM engine returned {length} tokens for a rollout of {G}, without an end"
        )
    return sample.tokens + [0] * (G - length), sample.log_probs + [0.0] * (G - length)
