"""Sampler `hf_tree`: the policy itself, all branches of a document in lock step on one cache."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from transformers import DynamicCache

from ebft.models.forward import autocast, decode
from ebft.models.log_probs import logits
from ebft.models.whole import whole
from ebft.parts import Claim, Part, Resources
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.sees import Sees, sees_trunk
from ebft.rollout.streams import uniforms
from ebft.rollout.tree import rank_in_document
from ebft.samplers.draw import draw
from ebft.samplers.truncate import truncate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("ebft")


class HfTree(Part):
    """Samples from the policy with transformers: exact, no second copy of the weights.

    Each document is prefilled once; its n·A branches then decode together against that cache, one
    token each at a time: S + n·A·(G−1) token-forwards for a document with A anchors.
    """

    n: int = Field(4, ge=1, description="rollouts of each context")
    temperature: float = Field(
        1.0, gt=0, description="divides the logits, when sampling and when training on them"
    )

    top_k: int | None = Field(
        None, ge=1, description="sample from the k likeliest tokens only: off-policy; null: all"
    )
    top_p: float | None = Field(
        None, gt=0, le=1,
        description="sample from the smallest set of tokens with this probability only: "
        "off-policy; null: all",
    )  # fmt: skip

    @property
    def truncated(self) -> bool:
        """Whether some tokens can never be sampled."""
        return self.top_k is not None or (self.top_p is not None and self.top_p < 1)

    def claim(self) -> Claim | None:
        if self.truncated:
            return Claim(False, "top_k and top_p sample from another distribution than is trained")
        return Claim(True, "it samples from the policy that is trained")

    def build(self, resources: Resources) -> HfTreeSampler:
        if self.truncated:
            log.warning(
                "OFF-POLICY: sampler.top_k = %s and sampler.top_p = %s sample from a part of the "
                "policy's distribution, but all of it is trained; the gradient is biased. Set both "
                "to null unless that is what you study.",
                self.top_k, self.top_p,
            )  # fmt: skip
        return HfTreeSampler(self, resources)


class HfTreeSampler:
    """`HfTree` bound to a policy."""

    def __init__(self, options: HfTree, resources: Resources) -> None:
        self.n = options.n
        self._temperature = options.temperature
        self._options = options
        self._resources = resources

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Nothing to do: the policy itself is sampled from."""
        return {}

    @torch.no_grad()
    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts:
        resources = self._resources
        with autocast(resources.device, resources.precision):
            parts = [
                whole(resources.policy, self._sample, part, step)
                for _, part in contexts.split(resources.micro_batch)
            ]
        tokens, log_probs = (torch.cat(column) for column in zip(*parts, strict=True))
        mask = torch.ones_like(tokens, dtype=torch.bool)
        if contexts.stop_at_eos:
            ends = tokens == resources.tokenizer.eos_token_id
            mask = ends.cumsum(-1) - ends.long() == 0
        return Rollouts(contexts, tokens, log_probs, mask, self._temperature)

    def _sample(
        self, contexts: Contexts, step: int
    ) -> tuple[Int[Tensor, "P n G"], Float[Tensor, "P n G"]]:
        policy, seed, n = self._resources.policy, self._resources.seed, self.n
        (B, S), P, G = contexts.tokens.shape, len(contexts), contexts.rollout_length
        device = contexts.tokens.device
        layout = BranchLayout(contexts, n)
        # Not of the policy's configuration: a cache for sliding windows would drop what is older
        # than its window in the order of the cache, which is not that of the tree.
        cache = DynamicCache()

        column = torch.arange(S, device=device)
        trunk = decode(
            policy, contexts.tokens, column.expand(B, S), sees_trunk(B, S, device), cache
        )
        # Branch t=0 tokens all come from the trunk: one distribution a context, n draws from it.
        uniform = uniforms(contexts, n=n, seed=seed, step=step, token=0)
        at_anchor = logits(policy, trunk[contexts.row, contexts.anchor - 1])
        token, log_prob = self._draw(at_anchor, uniform)
        tokens, log_probs = [token], [log_prob]

        for t in range(1, G):
            hidden = decode(
                policy, layout.spread(token), layout.spread(layout.position(t - 1)),
                layout.sees(t), cache,
            )  # fmt: skip
            uniform = uniforms(contexts, n=n, seed=seed, step=step, token=t)
            predicted = logits(policy, layout.collect(hidden))
            token, log_prob = self._draw(predicted, uniform.reshape(P * n, 1))
            token, log_prob = token.reshape(P, n), log_prob.reshape(P, n)
            tokens.append(token)
            log_probs.append(log_prob)
        return torch.stack(tokens, -1), torch.stack(log_probs, -1)

    def _draw(
        self, predicted: Float[Tensor, "N V"], uniform: Float[Tensor, "N k"]
    ) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
        options = self._options
        kept = truncate(
            predicted, temperature=options.temperature, top_k=options.top_k, top_p=options.top_p
        )
        return draw(kept, uniform, options.temperature)


class BranchLayout:
    """Where the branches of P contexts stand while they decode: Q queries a document.

    Branch j of its document's context a is query a·n + j. Every decoding step adds Q keys to the
    cache, so the keys are | trunk S | step 1: Q | step 2: Q | …
    """

    def __init__(self, contexts: Contexts, n: int) -> None:
        device = contexts.tokens.device
        rank = rank_in_document(contexts.row)
        self._contexts, self._n = contexts, n
        self._queries = int(rank.max() + 1) * n
        self._row = contexts.row[:, None].expand(-1, n)
        self._query = rank[:, None] * n + torch.arange(n, device=device)

    def spread(self, values: Int[Tensor, "P n"]) -> Int[Tensor, "B Q"]:
        """Values of branches at their queries; 0 where a document has fewer branches."""
        out = values.new_zeros(len(self._contexts.documents), self._queries)
        out[self._row, self._query] = values
        return out

    def collect(self, hidden: Float[Tensor, "B Q d"]) -> Float[Tensor, "Pn d"]:
        """The hidden states of the branches, without the queries of no branch."""
        return hidden[self._row, self._query].flatten(0, 1)

    def position(self, t: int) -> Int[Tensor, "P n"]:
        """Position ids of the branches' token number t."""
        return (self._contexts.anchor[:, None] + t).expand(-1, self._n)

    def sees(self, steps: int) -> Sees:
        """What each query sees at decoding step `steps`: its prefix, then itself at each step."""
        anchors = self.spread(self._contexts.anchor[:, None].expand(-1, self._n))
        return Sees(self._contexts.tokens.shape[1], anchors, steps, decoding=True)
