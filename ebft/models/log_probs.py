"""log p(token | hidden state) through the LM head, without all logits in memory at once.

Logits take most of a small model's memory and much of its time: [tokens, vocabulary] in float32.
Here they exist for `ROWS` tokens at a time, and backward computes them again; or all are kept for
backward, if there is room. Either way they are turned into gradients in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ebft.models.decoder import before_head, text_config
from ebft.models.shape import ROWS

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""What architectures call the cap of their logits."""
MULTIPLIES = ("logit_scale", "lm_head_multiplier", "output_multiplier")
"""What logits are multiplied by (Cohere, Falcon H1, MuseSpark)."""
DIVIDES = ("logits_scaling", "logits_mup_width_multiplier")
"""What logits are divided by (Granite, Inkling)."""


def token_log_probs(
    model: PreTrainedModel,
    hidden: Float[Tensor, "N d"],
    targets: Int[Tensor, " N"],
    temperature: float = 1.0,
    *,
    keep_logits: bool = False,
) -> Float[Tensor, " N"]:
    """Returns log p of each target, in nats, differentiable in the hidden states and the head.

    With `keep_logits` backward does not compute the logits again: the same result, bit for bit.

    Matrix products are in autocast's precision if it is on. Everything else, including their
    accumulation, is float32, or float64 for a float64 model.
    """
    log_probs, _ = _apply(model, hidden, targets, temperature, likeliest=0, keep_logits=keep_logits)
    return log_probs


def token_log_probs_and_entropies(
    model: PreTrainedModel,
    hidden: Float[Tensor, "N d"],
    targets: Int[Tensor, " N"],
    *,
    likeliest: int,
    keep_logits: bool = False,
) -> tuple[Float[Tensor, " N"], Float[Tensor, " M"]]:
    """Returns `token_log_probs` at temperature 1, and the entropy of each row's distribution over
    its so many `likeliest` tokens, in nats, without a gradient.

    The probabilities of these tokens are scaled so that their sum is 1. One product with the head
    gives both. M = N; with `likeliest` 0 there are no entropies and M = 0.
    """
    return _apply(model, hidden, targets, 1.0, likeliest=likeliest, keep_logits=keep_logits)


def _apply(
    model: PreTrainedModel,
    hidden: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    likeliest: int,
    keep_logits: bool,
) -> tuple[Tensor, Tensor]:
    hidden, weight, bias, cap = _inputs(model, hidden)
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    # The derivative of a cap is that of the logits themselves, of which only log-probs are kept.
    kept = keep_logits and cap is None and torch.is_grad_enabled()
    out: tuple[Tensor, Tensor] = _TokenLogProbs.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, temperature, cap, likeliest, kept
    )
    return out


def logits(model: PreTrainedModel, hidden: Float[Tensor, "N d"]) -> Float[Tensor, "N V"]:
    """Returns the model's logits from last hidden states, in float32 at least."""
    return _logits(*_inputs(model, hidden))


class Head(NamedTuple):
    """An LM head: logits are `scale · (weight · hidden + bias)`, and then `cap · tanh(logits/cap)`
    if there is a cap."""

    weight: Float[Tensor, "V d"]
    bias: Float[Tensor, " V"] | None
    scale: float
    cap: float | None


def head(model: PreTrainedModel) -> Head:
    """Returns the model's LM head. Raises `ValueError` if it is not one linear layer."""
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear):
        raise ValueError(f"{type(model).__name__} has no linear LM head: {linear!r}")
    config = text_config(model)
    cap = next((cap for key in CAPS if (cap := getattr(config, key, None)) is not None), None)
    return Head(linear.weight, linear.bias, _scale(config), cap)


def _scale(config: PretrainedConfig) -> float:
    # HyperCLOVA X multiplies by `logits_scaling`, the others (Granite, MiniCPM3) divide by it.
    # `models.probe` detects any other scaling.
    divides = DIVIDES if config.model_type != "hyperclovax" else ()
    scale = 1.0
    for key in (*MULTIPLIES, *DIVIDES):
        factor = getattr(config, key, None)
        if factor is not None:
            scale *= 1 / factor if key in divides else factor
    return float(scale)


def _inputs(
    model: PreTrainedModel, hidden: Float[Tensor, "N d"]
) -> tuple[Tensor, Tensor, Tensor | None, float | None]:
    """Returns what the head's linear layer reads, weight and bias that give the scaled logits, and
    the logits' cap."""
    for layer in before_head(model):
        hidden = layer(hidden)
    weight, bias, scale, cap = head(model)
    if scale != 1:
        hidden, bias = hidden * scale, None if bias is None else bias * scale
    return hidden, weight, bias, cap


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, cap: float | None) -> Tensor:
    bias = None if bias is None else bias.to(weight.dtype)
    out = nn.functional.linear(hidden, weight, bias)
    out = out.to(torch.promote_types(out.dtype, torch.float32))
    return out if cap is None else out.div_(cap).tanh_().mul_(cap)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        cap: float | None,
        likeliest: int,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        log_probs, entropies, kept = [], [], []
        cast = weight.to(hidden.dtype)
        for rows, wanted in zip(torch.split(hidden, ROWS), torch.split(targets, ROWS), strict=True):
            log_p = _log_softmax(_logits(rows, cast, bias, cap), temperature)
            log_probs.append(log_p.gather(1, wanted[:, None])[:, 0])
            entropies.append(_entropy(log_p, likeliest))
            if keep:
                kept.append(log_p)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature, ctx.cap, ctx.kept = temperature, cap, kept
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return torch.cat(log_probs), entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        cap, temperature = ctx.cap, ctx.temperature
        kept, ctx.kept = ctx.kept, []  # they are overwritten: another backward computes them again
        cast = weight.to(hidden.dtype)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for part, first in enumerate(range(0, len(hidden), ROWS)):
            rows, slope = slice(first, first + ROWS), None
            if kept:
                log_p = kept[part]
            else:
                z = _logits(hidden[rows], cast, bias, cap)
                slope = None if cap is None else 1 - (z / cap) ** 2
                log_p = _log_softmax(z, temperature)
            # d log p / d logits = (one-hot − softmax) / temperature
            each = grad[rows] / temperature
            dz = log_p.exp_().mul_(-each[:, None])
            dz[torch.arange(len(dz), device=dz.device), targets[rows]] += each
            if slope is not None:
                dz.mul_(slope)
            if d_bias is not None:
                d_bias += dz.sum(0)
            dz = dz.to(cast.dtype)
            torch.mm(dz, cast, out=d_hidden[rows])
            if d_weight is not None:
                _add_product(d_weight, dz.T, hidden[rows])
        return d_hidden, d_weight, d_bias, None, None, None, None, None


def _log_softmax(z: Float[Tensor, "N V"], temperature: float) -> Float[Tensor, "N V"]:
    """The log-probs of logits, which it may overwrite."""
    return (z if temperature == 1 else z.div_(temperature)).log_softmax(-1)


def _entropy(log_p: Float[Tensor, "N V"], likeliest: int) -> Float[Tensor, " M"]:
    """The entropy of the softmax of each of the M = N rows' largest log-probs; M = 0 for none."""
    if likeliest == 0:
        return log_p.new_empty(0)
    log_p = log_p.topk(min(likeliest, log_p.shape[1]), dim=-1).values.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total += a @ b` in total's precision: a bfloat16 sum stops growing when the next summand is
    less than its last digit."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
