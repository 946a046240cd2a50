"""Sampler `hf_tree`: the policy itself decodes all branches of a document together on one cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from pydantic import Field

from ebft.lazy import Tensor, no_grad, torch
from ebft.models.shape import ROWS
from ebft.parts.kinds import SamplerPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.contexts import make_rollouts
from ebft.rollout.merge import alike
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.streams import uniforms
from ebft.rollout.tree import plant
from ebft.rollout.tree_mask import Merged
from ebft.samplers.draw import draw
from ebft.samplers.row_contexts import RowReader, read_contexts
from ebft.samplers.truncate import truncate

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LOOKS_EVERY = 8
"""Tokens between two looks at whether all rollouts have ended, on a GPU: it waits for each. Tokens
after a rollout's end are not used."""
Uniform = Callable[[int], Float[Tensor, "P n"]]
"""Random numbers in [0, 1) for a token of all rollouts, by the token's number."""
Read = Callable[[Int[Tensor, " N"], int, Merged | None], Float[Tensor, "N d"]]
"""Reads a token of each branch, by its number, or of those kept of the merged ones."""


class HfTree(SamplerPart):
    """Samples from the policy with transformers: exact, and without a second copy of the weights.

    Each document is prefilled once, up to its last anchor. The n·A branches of its A anchors then
    decode together on that cache, one token at a time, with at most n·A·(G−1) token-forwards: on a
    CPU, branches that are the same so far are one. Micro-batches with few branches decode together.
    A model on rows (`model.attention`) decodes the branches of one anchor together, with caches of
    its own.
    """

    temperature: float = Field(
        1.0, gt=0, description="divides the logits, when sampling and when training on them"
    )

    top_k: int | None = Field(
        None, ge=1, description="sample only from the k likeliest tokens: off-policy; null: all"
    )
    top_p: float | None = Field(
        None, gt=0, le=1,
        description="sample only from the smallest set of tokens with this probability: "
        "off-policy; null: all",
    )  # fmt: skip

    keep_weights: bool = Field(
        False,
        description="in several processes: gather the weights once for all rollouts of a step, in "
        "place of once for each token. Faster for long rollouts; each process has all of them",
    )

    @property
    def truncated(self) -> bool:
        """Whether some tokens can never be sampled."""
        return self.top_k is not None or (self.top_p is not None and self.top_p < 1)

    def shares_prefixes(self) -> bool:
        return True

    def keeps_weights(self) -> bool:
        return self.keep_weights

    def claim(self) -> Claim:
        if self.truncated:
            return Claim(
                False,
                "top_k and top_p sample from a part of the distribution, but all of it is trained",
            )
        return Claim(True, "it samples from the policy that is trained")

    def build(self, resources: Resources) -> HfTreeSampler:
        return HfTreeSampler(self, resources)


class HfTreeSampler:
    """`HfTree` bound to a policy."""

    def __init__(self, options: HfTree, resources: Resources) -> None:
        self.n = options.n
        self._options = options
        self._resources, self._policy = resources, resources.policy
        self._looks_every = 1 if resources.device.type == "cpu" else LOOKS_EVERY
        # On a GPU a token takes as long for fewer branches, and it would wait for their number.
        self._merges = resources.device.type == "cpu"

    @property
    def _in_lockstep(self) -> bool:
        """Whether all processes compute the same number of forwards, because each gathers weights.
        On rows this number depends on the anchors, of which each process has its own."""
        from ebft.models.attention import on_tree

        keeps = self._options.keep_weights or not on_tree(self._policy)
        return self._resources.processes.size > 1 and not keeps

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Uses the policy itself; there is nothing to copy."""
        self._policy = policy
        return {}

    @no_grad
    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts:
        from ebft.models.attention import on_tree
        from ebft.models.forward import autocast
        from ebft.models.layers import eager
        from ebft.models.whole import kept_whole, whole
        from ebft.rollout.micro_batches import joined

        resources = self._resources
        # Rows have caches of their own.
        joins = not self._in_lockstep and on_tree(self._policy)
        divided = joined(contexts, n=self.n) if joins else contexts
        with (
            autocast(resources.device, resources.precision),
            eager(self._policy),
            nullcontext() if self._in_lockstep else kept_whole(self._policy),
        ):
            parts = [
                whole(self._policy, self._sample, micro_batch, step)
                for _, micro_batch in divided.split()
            ]
        tokens, log_probs = (torch.cat(column) for column in zip(*parts, strict=True))
        return make_rollouts(
            contexts, tokens, log_probs,
            tokenizer=resources.tokenizer, temperature=self._options.temperature,
        )  # fmt: skip

    def _sample(
        self, contexts: Contexts, step: int
    ) -> tuple[Int[Tensor, "P n G"], Float[Tensor, "P n G"]]:
        from ebft.models.attention import on_tree

        sample = self._on_tree if on_tree(self._policy) else self._on_rows
        return sample(contexts, uniforms(contexts, n=self.n, seed=self._resources.seed, step=step))

    def _on_tree(
        self, contexts: Contexts, uniform: Uniform
    ) -> tuple[Int[Tensor, "P n G"], Float[Tensor, "P n G"]]:
        from ebft.models.attention import pads_trunks
        from ebft.models.forward import TreeCache, decode

        policy = self._policy
        # No branch sees what comes after the last anchor, and the last token is never fed back.
        tree = plant(contexts.ending_after(0), n=self.n, steps=contexts.rollout_length - 1)
        mask = tree.mask.padded() if pads_trunks(policy) else tree.mask
        cache = TreeCache(mask.cached_columns)

        def read(
            tokens: Int[Tensor, " N"], number: int, merged: Merged | None
        ) -> Float[Tensor, "N d"]:
            # Token `number` of every branch.
            cache.writes_to = slice(mask.cached_trunk + number, None, mask.steps)
            cache.merged = merged
            positions = tree.positions[:, mask.trunk + number :: mask.steps]
            if merged is not None:
                positions = positions[:, merged.kept]
            return decode(policy, tokens[None], positions, mask.at(number, merged), cache)[0]

        cache.writes_to = mask.cached_trunk_at
        trunks = tree.tokens[:, : mask.trunk], tree.positions[:, : mask.trunk]
        hidden = decode(policy, *trunks, mask.trunks_only(), cache)[0]
        return self._continue(contexts, hidden[tree.context_at], uniform, read, merges=self._merges)

    def _on_rows(
        self, contexts: Contexts, uniform: Uniform
    ) -> tuple[Int[Tensor, "P n G"], Float[Tensor, "P n G"]]:
        shape = (len(contexts), self.n, contexts.rollout_length)
        tokens = contexts.tokens.new_zeros(shape)
        log_probs: Tensor | None = None
        for place, rows in read_contexts(self._policy, contexts):
            branches = rows.select(
                torch.arange(len(place), device=place.device).repeat_interleave(self.n)
            )
            reader = RowReader(branches)
            drawn, their_log_probs = self._continue(
                contexts, rows.newest, partial(_part_of, uniform, place), reader, merges=False
            )
            if log_probs is None:
                log_probs = their_log_probs.new_zeros(shape)
            tokens[place], log_probs[place] = drawn, their_log_probs
        assert log_probs is not None
        return tokens, log_probs

    def _continue(
        self,
        contexts: Contexts,
        hidden: Float[Tensor, "p d"],
        uniform: Uniform,
        read: Read,
        *,
        merges: bool,
    ) -> tuple[Int[Tensor, "p n G"], Float[Tensor, "p n G"]]:
        """Samples after p contexts with the last hidden states `hidden`. `read` takes token number
        i of all branches, and returns the hidden states that predict the next; if it `merges`, of
        the branches that have not ended, and once for those that are the same so far."""
        p, n, G = len(hidden), self.n, contexts.rollout_length
        branch = torch.arange(p * n, device=hidden.device)
        prefix, ended = branch // n, torch.zeros_like(branch, dtype=torch.bool)
        stops = not self._in_lockstep
        # n draws from one distribution for each context.
        drawn = [self._draw(hidden, uniform(0))]
        for t in range(1, G):
            last = drawn[-1][0].flatten()
            if contexts.stop_at_eos:
                ended |= last == self._resources.tokenizer.eos_token_id
                if stops and t % self._looks_every == 0 and ended.all():
                    break
            if merges:
                merged = alike(prefix, last, ~ended)
                prefix, kept = merged
                hidden = read(last[kept], t - 1, merged)
                # Again n draws from each: the branches that are the same so far differ from here.
                token, log_prob = (
                    x[prefix, branch % n] for x in self._draw(hidden, uniform(t)[kept // n])
                )
            else:
                hidden = read(last, t - 1, None)
                token, log_prob = self._draw(hidden, uniform(t).view(p * n, 1))
            drawn.append((token.view(p, n), log_prob.view(p, n)))
        tokens, log_probs = (torch.stack(column, -1) for column in zip(*drawn, strict=True))
        rest = (0, G - tokens.shape[-1])
        return torch.nn.functional.pad(tokens, rest), torch.nn.functional.pad(log_probs, rest)

    def _draw(
        self, hidden: Float[Tensor, "N d"], uniform: Float[Tensor, "N k"]
    ) -> tuple[Int[Tensor, "N k"], Float[Tensor, "N k"]]:
        """Draws k tokens after each hidden state, with the logits of `ROWS` of them at a time."""
        from ebft.models.log_probs import logits

        options = self._options
        parts = []
        for rows, numbers in zip(
            torch.split(hidden, ROWS), torch.split(uniform, ROWS), strict=True
        ):
            kept = truncate(
                logits(self._policy, rows),
                temperature=options.temperature, top_k=options.top_k, top_p=options.top_p,
            )  # fmt: skip
            parts.append(draw(kept, numbers, options.temperature))
        tokens, log_probs = (torch.cat(column) for column in zip(*parts, strict=True))
        return tokens, log_probs


def _part_of(uniform: Uniform, place: Int[Tensor, " p"], token: int) -> Float[Tensor, "p n"]:
    return uniform(token)[place]
