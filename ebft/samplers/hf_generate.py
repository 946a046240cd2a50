"""Sampler `hf_generate`: transformers' own `generate`, for long texts and any architecture."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from pydantic import Field

from ebft.lazy import Tensor, no_grad, torch, transformers
from ebft.parts.kinds import SamplerPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.contexts import make_rollouts
from ebft.rollout.records import Contexts, Rollouts
from ebft.rollout.streams import uniforms
from ebft.samplers.draw import draw

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HfGenerate(SamplerPart):
    """Samples from the policy with transformers' `generate`, each rollout in its own row.

    It is for comparisons, and for architectures whose cache only `generate` can keep: `hf_tree`
    samples from every architecture too, and reads each context once instead of n times. Rollouts
    equal those of `hf_tree` up to rounding, because both use the same random numbers; they do not
    depend on the batch. A batch is done when its last rollout has ended. Every row computes its
    whole context, so nested contexts (plan `strided`) cost far more than with `hf_tree`.
    """

    same_results = ("batch",)
    temperature: float = Field(
        1.0, gt=0, description="divides the logits, when sampling and when training on them"
    )
    batch: int = Field(
        8,
        ge=1,
        description="contexts in a forward pass, each with its n rollouts; changes memory and "
        "speed, not results",
    )

    def claim(self) -> Claim:
        return Claim(True, "it samples from the policy that is trained")

    def build(self, resources: Resources) -> HfGenerateSampler:
        return HfGenerateSampler(self, resources)


def plain(policy: PreTrainedModel) -> PreTrainedModel:
    """Returns a model with the same weights and an empty generation config.

    `generate` would merge the model's own config into ours (top_k, top_p, repetition_penalty,
    end-of-sequence tokens).
    """
    model = copy.copy(policy)
    model.generation_config = transformers.GenerationConfig()
    return model


class HfGenerateSampler:
    """`HfGenerate` bound to a policy."""

    def __init__(self, options: HfGenerate, resources: Resources) -> None:
        self.n = options.n
        self._options, self._resources = options, resources
        self._policy, self._model = resources.policy, plain(resources.policy)

    def sync(self, policy: PreTrainedModel, *, step: int) -> Mapping[str, float]:  # noqa: ARG002
        """Uses the policy itself; there is nothing to copy."""
        self._policy, self._model = policy, plain(policy)
        return {}

    @no_grad
    def __call__(self, contexts: Contexts, *, step: int) -> Rollouts:
        from ebft.models.forward import autocast
        from ebft.models.layers import eager
        from ebft.models.whole import whole

        resources = self._resources
        own = list(batches(contexts, self._options.batch))
        # Processes that share weights forward as often as each other: some sample a batch again.
        count = resources.processes.gather(torch.tensor([len(own)])).max()
        again = own[-1:] * (int(count) - len(own))
        with autocast(resources.device, resources.precision), eager(self._model):
            parts = [whole(self._policy, self._sample, part, step) for part in [*own, *again]]
        columns = zip(*parts[: len(own)], strict=True)
        tokens, log_probs = (torch.cat(column) for column in columns)
        return make_rollouts(
            contexts, tokens, log_probs,
            tokenizer=resources.tokenizer, temperature=self._options.temperature,
        )  # fmt: skip

    def _sample(
        self, contexts: Contexts, step: int
    ) -> tuple[Int[Tensor, "P n G"], Float[Tensor, "P n G"]]:
        n, G = self.n, contexts.rollout_length
        end = self._resources.tokenizer.eos_token_id if contexts.stop_at_eos else None
        tokens, attended = left_padded(contexts)
        uniform = uniforms(contexts, n=n, seed=self._resources.seed, step=step)
        draws = Draws(uniform, self._options.temperature)
        with self._model.register_forward_hook(draws.see):
            self._model.generate(
                tokens.repeat_interleave(n, 0),
                attention_mask=attended.repeat_interleave(n, 0),
                generation_config=transformers.GenerationConfig(
                    max_new_tokens=G, do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=0
                ),
                logits_processor=transformers.LogitsProcessorList([draws]),
                # Continues until the last rollout of all processes has ended.
                synced_gpus=self._resources.processes.size > 1,
            )
        drawn, log_probs = (
            torch.stack(column, -1).view(len(contexts), n, -1)
            for column in (draws.tokens, draws.log_probs)
        )
        missing = (0, G - drawn.shape[-1])  # `generate` stops when every row has ended
        return torch.nn.functional.pad(drawn, missing), torch.nn.functional.pad(log_probs, missing)


class Draws:
    """Draws each row's next token by its address in the random stream and masks all others.

    `generate` then decodes greedily. Its own sampling depends on the batch, and uses logits rounded
    to float32; `see` records those of the model.
    """

    def __init__(self, uniform: Callable[[int], Float[Tensor, "P n"]], temperature: float) -> None:
        self._uniform, self._temperature = uniform, temperature
        self._logits: Tensor | None = None
        self.tokens: list[Int[Tensor, " Pn"]] = []
        self.log_probs: list[Float[Tensor, " Pn"]] = []

    def see(self, _model: torch.nn.Module, _inputs: Any, output: Any) -> None:
        """Forward hook: keeps the logits at the newest token."""
        newest = output.logits[:, -1]
        self._logits = newest.to(torch.promote_types(newest.dtype, torch.float32))

    def __call__(
        self,
        input_ids: Int[Tensor, "Pn T"],  # noqa: ARG002
        scores: Float[Tensor, "Pn V"],
    ) -> Float[Tensor, "Pn V"]:
        assert self._logits is not None
        assert self._logits.shape == scores.shape, "generate passes the scores of the rows it ran"
        uniform = self._uniform(len(self.tokens)).view(-1, 1)
        token, log_prob = draw(self._logits, uniform, self._temperature)
        self._logits = None  # some architectures return logits of the whole context: frees them
        self.tokens.append(token[:, 0])
        self.log_probs.append(log_prob[:, 0])
        return torch.full_like(scores, float("-inf")).scatter_(1, token, 0)


def batches(contexts: Contexts, size: int) -> Iterator[Contexts]:
    """Yields parts of at most `size` contexts, in order; each still has all documents."""
    for start in range(0, len(contexts), size):
        part = slice(start, start + size)
        names = ("row", "anchor", "reference", "reference_mask")
        yield replace(contexts, **{name: getattr(contexts, name)[part] for name in names})


def left_padded(contexts: Contexts) -> tuple[Int[Tensor, "P L"], Int[Tensor, "P L"]]:
    """Returns the contexts' tokens, padded on the left, and a mask: 1 for tokens, 0 for padding."""
    longest = int(contexts.anchor.max())
    column = torch.arange(longest, device=contexts.anchor.device) - longest
    position = column + contexts.anchor[:, None]
    tokens = contexts.tokens[contexts.row[:, None], position.clamp(min=0)]
    there = position >= 0
    return tokens.where(there, 0), there.long()
