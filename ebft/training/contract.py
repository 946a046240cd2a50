"""What the loop holds parts to: the shapes that their kind promises, at every step.

A wrong shape seldom fails where it arises: it broadcasts, and the figures are of something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.errors import PluginError
from ebft.rollout.records import Contexts, Features, Rollouts, Terms


def check_rollouts(rollouts: Rollouts, contexts: Contexts, *, n: int) -> None:
    """Raises `PluginError` unless they are n rollouts of at least one token after each context."""
    shape = (len(contexts), n, contexts.rollout_length)
    for name in ("tokens", "log_probs", "mask"):
        _check_shape("sampler", f"rollouts.{name}", getattr(rollouts, name), shape, "[P, n, G]")
    if not bool(rollouts.mask[..., 0].all()):
        raise PluginError("sampler: rollouts.mask is False at the first token of a rollout")


def check_features(features: Features, rows: int, n: int, *, key: str) -> Features:
    """The features, in float32 if they came in less: their inner products are what is compared.

    In bfloat16 those of two rollouts differ by less than rounding. `rows` counts contexts, or
    their tokens. Raises `PluginError` for another shape.
    """
    samples, references = features.samples, features.references
    D, m = samples.shape[-1], references.shape[1] if references.ndim == 3 else 1
    _check_shape(key, "features.samples", samples, (rows, n, D), "[P, n, D]")
    _check_shape(key, "features.references", references, (rows, m, D), "[P, m, D]")
    if features.paired and m != n:
        raise PluginError(f"{key}: features are paired, with {m} references for {n} rollouts")
    dtype = torch.promote_types(samples.dtype, torch.float32)
    return replace(features, samples=samples.to(dtype), references=references.to(dtype))


def check_terms(terms: Terms, rows: int, n: int) -> None:
    """Raises `PluginError` for terms of another shape, or a rollout's term with itself."""
    _check_shape("reward", "terms.unary", terms.unary, (rows, n), "[P, n]")
    _check_shape("reward", "terms.pairwise", terms.pairwise, (rows, n, n), "[P, n, n]")
    if bool(terms.pairwise.diagonal(dim1=1, dim2=2).any()):
        raise PluginError(
            "reward: the diagonal of terms.pairwise is not zero; a rollout's term with itself "
            "belongs to terms.unary"
        )


def check_advantages(advantages: Float[Tensor, "P n"], terms: Terms) -> None:
    """Raises `PluginError` unless each rollout has one."""
    _check_shape("baseline", "advantages", advantages, tuple(terms.unary.shape), "[P, n]")


def _check_shape(key: str, name: str, value: Tensor, shape: Sequence[int], letters: str) -> None:
    if tuple(value.shape) != tuple(shape):
        raise PluginError(
            f"{key}: {name} has shape {list(value.shape)}; {letters} is {list(shape)}"
        )
