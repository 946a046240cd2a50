"""Counter-based random numbers: every draw has an address, and its value depends on that alone.

The address is (seed, step, document, anchor, sample, token). So rollouts do not change with the
micro-batch, the order of documents or the number of processes, and nothing has to be saved to
resume. A document that a step has twice has two names (`ebft.data.order`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

from jaxtyping import Float, Int

from ebft.lazy import Tensor, torch
from ebft.rollout.records import Contexts
from ebft.rollout.transfer import move

# Constants of splitmix64 (Steele, Lea & Flood 2014) as signed 64-bit integers.
GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
MIX_2 = 0x94D049BB133111EB - (1 << 64)


def uniforms(
    contexts: Contexts, *, n: int, seed: int, step: int
) -> Callable[[int], Float[Tensor, "P n"]]:
    """Returns a function from a token's number in its rollout to float64 numbers in [0, 1), one
    for each rollout. The address up to the token is computed once.
    """
    state = _context_state(contexts, seed=seed, step=step)
    state = _absorb(state[:, None], torch.arange(n, device=state.device))
    return lambda token: _shift(_absorb(state, token), 11).to(torch.float64) * 2.0**-53


def context_seeds(contexts: Contexts, *, seed: int, step: int) -> Int[Tensor, " P"]:
    """A seed in [0, 2⁶²) for each context, for generators other than this one.

    Samplers that draw in a process of their own seed rollout j of a context with its seed + j.
    """
    return _shift(_context_state(contexts, seed=seed, step=step), 2)


def document_keys(names: Sequence[str]) -> Int[Tensor, " B"]:
    """A 64-bit number for each document, from its name alone."""
    digests = (
        blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names
    )
    return torch.tensor([int.from_bytes(d, "little", signed=True) for d in digests])


def _context_state(contexts: Contexts, *, seed: int, step: int) -> Int[Tensor, " P"]:
    key = document_keys([document.name for document in contexts.documents])
    key = move(key, contexts.tokens.device)
    state = _absorb(_absorb(torch.zeros_like(key), seed), step)
    return _absorb(_absorb(state, key)[contexts.row], contexts.anchor)


def _absorb(state: Tensor, value: Tensor | int) -> Tensor:
    """One round of splitmix64 over a state into which `value` has been mixed."""
    # The products wrap modulo 2⁶⁴, which is what the generator asks for.
    x = (state ^ value) + GOLDEN
    x = (x ^ _shift(x, 30)) * MIX_1
    x = (x ^ _shift(x, 27)) * MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
