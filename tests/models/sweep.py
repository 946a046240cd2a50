"""What ebft can do with an architecture: tried on a tiny model with random weights, in float64."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

import ebft.models.flex  # noqa: F401  (transformers knows its attention from then on)
from ebft.errors import UserError
from ebft.features.hidden_states import HiddenStates
from ebft.models.attention import TREE, on_tree, own_attention
from ebft.models.decoder import decoder_blocks
from ebft.models.layout import Depth, load_exact
from ebft.models.row_cache import caching
from ebft.models.tree_log_probs import tree_log_probs
from ebft.plans.strided import Strided
from ebft.rollout.records import Document
from ebft.samplers.hf_tree import HfTree
from ebft.testing.tiny import tiny_resources, tiny_tokenizer
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.models.shrink import VOCAB, tiny_config
from tests.tiny import trained_on

PLAN = Strided(start=3, stride=7, rollout_length=4)
LENGTHS = (30, 17)
DEPTH = Depth(max(LENGTHS), PLAN.rollout_length)
LARGEST = 20_000_000
"""Weights of a tiny model: some architectures have parts whose sizes are fixed."""
SMALL = 0.1
"""Standard deviation of a random matrix below which it is made larger, or nothing would matter."""


class NotBuiltError(Exception):
    """A tiny model of the architecture cannot be made here."""


class InFloat64(TorchDispatchMode):
    """Casts to float32 are casts to float64 inside it.

    Most architectures compute norms, positions and routing in float32, so that rounding would hide
    any error below 1e-6. In float64 throughout, what is left is rounding at 1e-15.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        args = tuple(map(wider, args))
        return func(*args, **{key: wider(value) for key, value in (kwargs or {}).items()})


def wider(value):
    return torch.float64 if value is torch.float32 else value


@dataclass(frozen=True)
class Result:
    """Gaps are the largest differences from the model's own forward over single texts: in nats for
    log-probs, relative to the largest entry for features and gradients. `sampled` is the largest
    difference of log-probs between sampling on a cache and training."""

    layout: str
    why: str = ""
    dtype: str = "float64"
    caching: str = ""
    log_probs: float = 0.0
    sampled: float = 0.0
    features: float | str = 0.0
    gradients: float = 0.0
    losses: tuple[float, ...] = ()

    @property
    def gap(self):
        features = self.features if isinstance(self.features, float) else 0.0
        return max(self.log_probs, features, self.gradients)


def build(name, attention=TREE, dtype=torch.float64):
    """A tiny model. Raises `NotBuiltError` if its configuration cannot be made small."""
    try:
        config = tiny_config(name)
        with torch.device("meta"):
            size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    except Exception as error:
        raise NotBuiltError(f"{type(error).__name__}: {error}") from error
    if size > LARGEST:
        raise NotBuiltError(f"it has {size:,} weights")
    torch.manual_seed(0)
    try:
        model = AutoModelForCausalLM.from_config(tiny_config(name), attn_implementation=attention)
    except KeyError:  # as in `ebft.models.load`
        model = AutoModelForCausalLM.from_config(tiny_config(name))
    if dtype == torch.float64:
        with suppress(ValueError):  # of architectures without experts
            model.set_experts_implementation("eager")  # the default has no float64
    for weight in model.parameters():
        if weight.dim() > 1 and weight.std() < SMALL:
            torch.nn.init.normal_(weight, std=2 * SMALL)
    return model.to(dtype).eval()


def try_out(model):
    """Raises `NotBuiltError` if a tiny model does not compute with an attention of its own."""
    try:
        with torch.no_grad():
            model(input_ids=torch.ones(1, 12).long(), use_cache=False)
    except Exception as error:
        raise NotBuiltError(f"{type(error).__name__}: {error}") from error


def documents():
    generator = torch.Generator().manual_seed(0)
    return [
        Document(f"doc{i}", torch.randint(3, VOCAB, (length,), generator=generator))
        for i, length in enumerate(LENGTHS)
    ]


def examine(name):
    """The layout that `auto` takes, how exact it is, and two training steps.

    In float32 if the architecture cannot be computed in float64.
    """
    with suppress(NotBuiltError), InFloat64():
        result = examine_in(name, torch.float64)
        if result.layout != "refused":
            return result
    return examine_in(name, torch.float32)


def examine_in(name, dtype):
    try_out(build(name, None, dtype))

    def load(attention):
        own = attention == "rows"
        return build(name, None if own else TREE, dtype=dtype), tiny_tokenizer()

    try:
        loaded = load_exact(load, "auto", depth=DEPTH, sample=sample)
    except UserError as error:
        return Result("refused", str(error), named(dtype))
    policy = loaded.policy
    contexts = PLAN(documents())
    sampler = HfTree(n=2).build(tiny_resources(policy))
    rollouts = sampler(contexts, step=0)
    return Result(
        "tree" if on_tree(policy) else "rows",
        loaded.why_rows or "",
        named(dtype),
        "" if on_tree(policy) else caching(policy).value,
        log_prob_gap(policy, rollouts),
        sampling_gap(policy, rollouts),
        feature_gap(policy, rollouts),
        gradient_gap(policy, rollouts),
        tuple(train(policy, contexts, sampler)),
    )


def sample(policy, _tokenizer, contexts):
    return HfTree(n=2).build(tiny_resources(policy))(contexts, step=0)


def named(dtype):
    return str(dtype).removeprefix("torch.")


def texts(rollouts):
    """Each rollout with its prefix: (context, sample, text)."""
    contexts = rollouts.contexts
    for p, (row, anchor) in enumerate(
        zip(contexts.row.tolist(), contexts.anchor.tolist(), strict=True)
    ):
        for j, branch in enumerate(rollouts.tokens[p]):
            yield p, j, torch.cat([contexts.tokens[row, :anchor], branch])


def own_log_probs(policy, text):
    logits = policy(input_ids=text[None], use_cache=False).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, text[1:, None])[:, 0]


def independent(policy, rollouts):
    """log p of all rollouts [P, n, G] and documents, from the model's forward over single texts."""
    G = rollouts.tokens.shape[-1]
    branches = [own_log_probs(policy, text)[-G:] for _, _, text in texts(rollouts)]
    contexts = rollouts.contexts
    trunks = [
        own_log_probs(policy, contexts.tokens[i, :length])
        for i, length in enumerate(contexts.lengths.tolist())
    ]
    return torch.stack(branches).view(rollouts.tokens.shape), torch.cat(trunks)


def in_layout(policy, rollouts):
    found, lengths = tree_log_probs(policy, rollouts), rollouts.contexts.lengths.tolist()
    trunks = [found.documents[i, 1:length] for i, length in enumerate(lengths)]
    return found.rollouts, torch.cat(trunks)


def log_prob_gap(policy, rollouts):
    with torch.no_grad():
        here = in_layout(policy, rollouts)
        with own_attention(policy):
            pairs = zip(here, independent(policy, rollouts), strict=True)
        return max(float((a - b).abs().max()) for a, b in pairs)


def sampling_gap(policy, rollouts):
    with torch.no_grad():
        return float((in_layout(policy, rollouts)[0] - rollouts.log_probs).abs().max())


def gradient_gap(policy, rollouts):
    weights = torch.randn(rollouts.tokens.shape, generator=torch.Generator().manual_seed(1))
    gradients = []
    for compute in (in_layout, independent):
        policy.zero_grad()
        with nullcontext() if compute is in_layout else own_attention(policy):
            branches, trunks = compute(policy, rollouts)
            ((branches * weights).sum() + 0.3 * trunks.sum()).backward()
        gradients.append({k: p.grad for k, p in policy.named_parameters() if p.grad is not None})
    policy.zero_grad()
    a, b = gradients
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    largest = max(float(grad.abs().max()) for grad in b.values())
    return max(float((a[k] - b[k]).abs().max()) for k in b) / largest


def feature_gap(policy, rollouts):
    """Of hidden states of a middle layer, at the last token of each rollout."""
    try:
        _, blocks = decoder_blocks(policy)
        index = len(blocks) // 2
        part = HiddenStates(depths=(index / len(blocks) + 1e-6,), normalize=False)
        features = part.build(tiny_resources(policy))(rollouts)
    except (UserError, ValueError) as error:
        return str(error)
    gaps, largest = [], float(features.samples.abs().max())
    for p, j, text in texts(rollouts):
        seen = []

        def keep(_module, _inputs, output, seen=seen):
            seen.append(output[0] if isinstance(output, tuple | list) else output)

        hook = blocks[index - 1].register_forward_hook(keep)
        with hook, torch.no_grad(), own_attention(policy):
            policy(input_ids=text[None], use_cache=False)
        alone = seen[0]
        place = list(alone.shape).index(len(text))
        # Streams are concatenated, as in `models.forward`.
        last = alone.movedim(place, 0)[-1].reshape(-1)
        gaps.append(float((features.samples[p, j] - last).abs().max()))
    return max(gaps) / largest


def train(policy, contexts, sampler):
    """Two steps of the algorithm with random advantages; yields their losses."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    before = [p.detach().clone() for p in trained]
    for step in range(2):
        rollouts = sampler(contexts, step=step)
        advantages = torch.randn(rollouts.tokens.shape[:2], dtype=torch.float64)
        losses = accumulate_gradients(
            policy, *trained_on(rollouts, advantages, micro_batch=1), ObjectiveOptions(gamma=0.3),
            precision=torch.float32, gradient_checkpointing=False, step=step,
        )  # fmt: skip
        optimizer.step()
        optimizer.zero_grad()
        sampler.sync(policy, step=step)
        yield float(losses.cross_entropy)
    assert any(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))
