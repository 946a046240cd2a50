"""`check_sampler`: are rollouts sampled from the policy, and are their log-probs the policy's?"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from scipy.stats import chisquare
from torch import Tensor

from ebft.errors import PluginError
from ebft.models.forward import decode
from ebft.models.log_probs import logits
from ebft.models.tree_log_probs import tree_log_probs
from ebft.parts.interfaces import Sampler
from ebft.parts.kinds import SamplerPart
from ebft.parts.part import Part, Resources
from ebft.plans.completion import Completion
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.tree_mask import trunk_mask
from ebft.testing.common import (
    Unchanged,
    check_options,
    check_tensor,
    close,
    contexts_of_both_plans,
    require,
)
from ebft.testing.tiny import tiny_documents, tiny_resources
from ebft.training.checks import sync_figures

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DRAWS = 2048
UNLIKELY = 1e-6
"""The p-value below which draws are not from the expected distribution."""


def check_sampler(
    part: SamplerPart,
    resources: Resources | None = None,
    *,
    tolerance: float = 1e-6,
    batch_invariant: bool = True,
) -> None:
    """Checks a sampler on contexts of both plans, with a small vocabulary.

    It checks shapes, dtypes and masks; that log-probs are the policy's at the stated temperature,
    to `tolerance`; that first and second tokens have the policy's frequencies (2,048 draws); that
    rollouts depend on the seed and the step, not on the global generator and, if `batch_invariant`,
    not on the other documents of the batch; that the policy is not changed; and that it samples
    from the new weights after `sync`. Raises `AssertionError`.
    """
    check_options(part, SamplerPart)
    resources = tiny_resources() if resources is None else resources
    policy = resources.policy
    weights = copy.deepcopy(policy.state_dict())
    sampler = part.build(resources)
    require(part, isinstance(sampler, Sampler), "build() returns something to call, with `sync`")
    require(part, sampler.n == part.n, "what build() returns has the option's n")
    plans = contexts_of_both_plans(resources)
    for contexts in plans.values():
        unchanged = Unchanged(contexts)
        rollouts = sampler(contexts, step=0)
        require(part, bool(unchanged), "it does not modify its input")
        _check_shapes(part, rollouts, contexts, sampler.n, resources)
        _check_log_probs(part, policy, rollouts, tolerance)
        _check_seed(part, rollouts, sampler, resources, tolerance)
        if batch_invariant:
            for place, some in contexts.one_by_one().split():
                require(
                    part,
                    _same(sampler(some, step=0), rollouts, place, tolerance),
                    "rollouts of a document do not depend on the other documents of the batch",
                )
    require(part, _intact(policy, weights), "sampling does not modify the policy")
    _check_frequencies(part, resources)
    _check_sync(part, sampler, policy, plans["strided"], tolerance)


def _check_shapes(
    part: Part, rollouts: Rollouts, contexts: Contexts, n: int, resources: Resources
) -> None:
    require(part, isinstance(rollouts, Rollouts), "it returns ebft.Rollouts")
    tokens, mask = rollouts.tokens, rollouts.mask
    shape = (len(contexts), n, contexts.rollout_length)
    require(part, rollouts.contexts is contexts, "rollouts.contexts is the argument contexts")
    require(part, tuple(tokens.shape) == shape, f"tokens are [P, n, G] = {list(shape)}")
    require(part, tokens.dtype == torch.long, f"tokens are int64, not {tokens.dtype}")
    vocabulary = resources.policy.config.vocab_size
    require(
        part, bool(((tokens >= 0) & (tokens < vocabulary)).all()), "tokens are in the vocabulary"
    )
    check_tensor(part, "log_probs", rollouts.log_probs, shape)
    require(part, tuple(mask.shape) == shape and mask.dtype == torch.bool, "mask is bool [P, n, G]")
    require(part, bool((rollouts.log_probs[mask] <= 0).all()), "log-probs are not positive")
    if not contexts.stop_at_eos:
        require(part, bool(mask.all()), "without stop_at_eos a rollout has all of its G tokens")
        return
    ends = tokens == resources.tokenizer.eos_token_id
    expected = ends.cumsum(-1) - ends.long() == 0
    inside = torch.equal(mask, mask & expected)
    full = mask.sum(-1) == shape[-1]
    last = tokens.gather(-1, (mask.sum(-1) - 1).clamp(min=0)[..., None])[..., 0]
    ended = last == resources.tokenizer.eos_token_id
    require(
        part,
        inside and bool((full | ended).all()) and bool(mask[..., 0].all()),
        "a rollout continues until end-of-sequence, which belongs to it, or to G tokens",
    )


def _check_log_probs(
    part: Part, policy: PreTrainedModel, rollouts: Rollouts, tolerance: float
) -> None:
    with torch.no_grad():
        expected = tree_log_probs(policy, rollouts).rollouts
    given = rollouts.log_probs.to(expected.dtype)
    worst = float((given - expected)[rollouts.mask].abs().max())
    require(
        part,
        worst <= tolerance,
        f"log-probs are the policy's at temperature {rollouts.temperature:g}, to {tolerance:g}; "
        f"they are {worst:.3g} off",
    )


def _check_seed(
    part: Part, rollouts: Rollouts, sampler: Sampler, resources: Resources, tolerance: float
) -> None:
    contexts, whole = rollouts.contexts, slice(None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        require(
            part,
            _same(sampler(contexts, step=0), rollouts, whole, tolerance),
            "the same step samples the same, independent of torch's global generator",
        )
        again = part.build(resources)(contexts, step=0)
        require(part, _same(again, rollouts, whole, tolerance), "built again, it samples the same")
    for what, other in (
        ("another step", sampler(contexts, step=1)),
        ("another seed", part.build(replace(resources, seed=resources.seed + 1))(contexts, step=0)),
    ):
        require(
            part, not torch.equal(other.tokens, rollouts.tokens), f"{what} samples other tokens"
        )


def _check_frequencies(part: Part, resources: Resources) -> None:
    (document,) = tiny_documents(
        [9], prompt_length=6, vocabulary=resources.policy.config.vocab_size
    )
    count, n = DRAWS // 64, 64
    # One text under many names: one distribution, and different random numbers for each context.
    documents = [replace(document, name=f"{document.name}.{i}") for i in range(count)]
    contexts = replace(Completion(rollout_length=2)(documents), stop_at_eos=False)
    contexts = contexts.to(resources.device)
    sampler: Sampler = part.model_copy(update={"n": n}).build(resources)
    rollouts = sampler(contexts, step=0)
    prefix = contexts.tokens[:1, :6]
    first = _next_token(resources.policy, prefix, rollouts.temperature)[0]
    vocabulary = len(first)
    rows = torch.cat(
        [prefix.expand(vocabulary, -1), torch.arange(vocabulary, device=prefix.device)[:, None]], 1
    )
    second = first @ _next_token(resources.policy, rows, rollouts.temperature)
    for number, expected in enumerate((first, second)):
        drawn = rollouts.tokens[..., number].flatten()
        p = _p_value(torch.bincount(drawn, minlength=vocabulary).double(), expected * len(drawn))
        require(
            part,
            p > UNLIKELY,
            f"token {number} of rollouts has the policy's distribution at temperature "
            f"{rollouts.temperature:g}; that {DRAWS} draws fit it has probability {p:.2g}",
        )


@torch.no_grad()
def _next_token(
    policy: PreTrainedModel, tokens: Tensor, temperature: float
) -> Float[Tensor, "B V"]:
    B, S = tokens.shape
    positions = torch.arange(S, device=tokens.device).repeat(1, B)
    hidden = decode(policy, tokens.view(1, -1), positions, trunk_mask([S] * B, tokens.device))
    return (logits(policy, hidden[0, S - 1 :: S]).double() / temperature).softmax(-1)


def _p_value(counts: Float[Tensor, " V"], expected: Float[Tensor, " V"]) -> float:
    # The chi-squared test needs five or more draws in each class, so rare tokens are merged.
    rare = expected < 5
    if bool(rare.any()):
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    return float(chisquare(counts.cpu().numpy(), expected.cpu().numpy(), sum_check=False).pvalue)


def _check_sync(
    part: Part, sampler: Sampler, policy: PreTrainedModel, contexts: Contexts, tolerance: float
) -> None:
    before = copy.deepcopy(policy.state_dict())
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for weight in policy.parameters():
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight += 0.1 * noise.to(weight)
        _check_figures(part, sampler.sync(policy, step=0))
        _check_log_probs(part, policy, sampler(contexts, step=1), tolerance)
    finally:
        policy.load_state_dict(before)
        sampler.sync(policy, step=1)


def _check_figures(part: Part, returned: object) -> None:
    try:
        sync_figures(returned)
    except PluginError as error:
        raise AssertionError(f"{type(part).__name__}: {error}") from error


def _same(a: Rollouts, b: Rollouts, place: slice, tolerance: float) -> bool:
    mask = b.mask[place]
    return (
        torch.equal(a.mask, mask)
        and torch.equal(a.tokens[mask], b.tokens[place][mask])
        and close(a.log_probs[mask], b.log_probs[place][mask], tolerance)
    )


def _intact(policy: PreTrainedModel, weights: dict[str, Tensor]) -> bool:
    now = policy.state_dict()
    return (
        all(torch.equal(now[name], weight) for name, weight in weights.items())
        and all(p.grad is None for p in policy.parameters())
        and not policy.training
    )
