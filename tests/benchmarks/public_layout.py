"""The layout of the public implementations, written anew to be measured against.

n copies of every document, each followed by its blocks' tokens in the order in which they are
sampled: | trunk: S | step 0: K tokens | step 1: K tokens | …. Every step forwards the whole row
again without a cache, under a dense mask that Python loops fill. Every forward, the features' too,
is one of the whole model: all layers, logits at every position. Both implementations load their
models with transformers' eager attention, which writes out the scores of all pairs of tokens; the
same with fused attention is measured beside it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ebft.rollout.records import Rollouts
from ebft.rollout.streams import uniforms
from ebft.samplers.draw import draw


@contextmanager
def attention(models, name: str) -> Iterator[None]:
    """Within it, transformers' own attention `name` in the models, whose weights stay."""
    before = [model.config._attn_implementation for model in models]
    try:
        for model in models:
            model.set_attn_implementation(name)
        yield
    finally:
        for model, old in zip(models, before, strict=True):
            model.set_attn_implementation(old)


def mask(anchors: list[int], S: int, steps: int) -> torch.Tensor:
    """[1, 1, T, T], added to the scores: 0 where a token (row) sees another (column)."""
    K = len(anchors)
    T = S + steps * K
    out = torch.zeros(T, T, dtype=torch.bool)
    out[:S, :S] = torch.ones(S, S, dtype=torch.bool).tril()
    for step in range(steps):
        for k, anchor in enumerate(anchors):
            row = S + step * K + k
            out[row, :anchor] = True
            for earlier in range(step + 1):
                out[row, S + earlier * K + k] = True
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(T, T).masked_fill_(~out, hidden)[None, None]  # on the CPU, as theirs


def inputs(contexts, n: int, generated: torch.Tensor):
    """Rows, position ids and mask with the tokens generated so far [n, steps, K]."""
    S, anchors = contexts.tokens.shape[1], contexts.anchor
    steps = generated.shape[1]
    rows = torch.cat([contexts.tokens.expand(n, S), generated.flatten(1)], 1)
    trunk = torch.arange(S, device=anchors.device)
    position = torch.cat([trunk, *(anchors + step for step in range(steps))])
    seen = mask(anchors.tolist(), S, steps).to(anchors.device)
    return rows, position.expand(n, -1), seen.expand(n, -1, -1, -1)


def forward(model, contexts, n, generated, **others):
    rows, positions, seen = inputs(contexts, n, generated)
    return model(
        input_ids=rows, position_ids=positions, attention_mask=seen, use_cache=False, **others
    )


@torch.no_grad()
def sample(policy, contexts, *, n: int, seed: int, step: int) -> torch.Tensor:
    """Rollout tokens [K, n, G], drawn with the numbers that `hf_tree` draws with."""
    K, G = len(contexts), contexts.rollout_length
    S = contexts.tokens.shape[1]
    uniform_of = uniforms(contexts, n=n, seed=seed, step=step)
    device = contexts.anchor.device
    generated = torch.zeros(n, 0, K, dtype=torch.long, device=device)
    for t in range(G):
        logits = forward(policy, contexts, n, generated).logits
        place = torch.arange(K, device=device)
        last = contexts.anchor - 1 if t == 0 else S + (t - 1) * K + place
        uniform = uniform_of(t)  # [K, n]
        tokens, _ = draw(logits[:, last].flatten(0, 1).float(), uniform.T.reshape(-1, 1), 1.0)
        generated = torch.cat([generated, tokens.view(n, 1, K)], 1)
    return generated.permute(2, 0, 1)


def _generated(rollouts: Rollouts) -> torch.Tensor:
    return rollouts.tokens.permute(1, 2, 0)  # [n, G, K]


@torch.no_grad()
def features(frozen, rollouts: Rollouts, layers: list[int]) -> torch.Tensor:
    """Last-token features of the rollouts [K, n, D], from a forward of the whole model."""
    contexts, (K, n, G) = rollouts.contexts, rollouts.tokens.shape
    S = contexts.tokens.shape[1]
    out = forward(frozen, contexts, n, _generated(rollouts), output_hidden_states=True)
    joint = torch.cat([out.hidden_states[layer] for layer in layers], -1)
    joint = torch.nn.functional.normalize(joint, dim=-1)
    return joint[:, S + (G - 1) * K :].transpose(0, 1)


def loss(policy, rollouts: Rollouts, advantages: torch.Tensor, gamma: float) -> torch.Tensor:
    """−1/K Σ 1/n Σ A log p + γ·CE, from the log-softmax of the logits of every position."""
    contexts, (K, n, G) = rollouts.contexts, rollouts.tokens.shape
    S = contexts.tokens.shape[1]
    generated = _generated(rollouts)
    log_probs = forward(policy, contexts, n, generated).logits.log_softmax(-1)
    place = torch.arange((G - 1) * K, device=contexts.anchor.device)
    before = torch.cat([contexts.anchor - 1, S + place])
    sampled = log_probs[:, before].gather(-1, generated.flatten(1)[..., None])[..., 0]
    per_rollout = sampled.view(n, G, K).sum(1).T  # [K, n]
    trunk = contexts.tokens[:, 1:].expand(n, -1)
    documents = log_probs[:, : S - 1].gather(-1, trunk[..., None])
    return -(advantages * per_rollout).mean() - gamma * documents.mean()
