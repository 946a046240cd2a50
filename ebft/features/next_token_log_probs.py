"""Feature map `next_token_log_probs`: what the frozen base model predicts after a rollout."""

from __future__ import annotations

from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt

from ebft.features.layers import FrozenLayers
from ebft.features.pooling import POOLING, Pooling, pool
from ebft.lazy import Tensor, no_grad, torch
from ebft.models.shape import ROWS
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.merge import grow_merged
from ebft.rollout.records import Features, Rollouts
from ebft.transforms.project import projection


class NextTokenLogProbs(FeatureMapPart):
    """φ = log p(· | context, rollout) of the next token by the frozen base model, pooled.

    Two continuations have similar features if the base model predicts the same after them. Each
    token has a vector over the vocabulary, at temperature 1. By default it is projected to fewer
    dimensions by a fixed random matrix R with E (Rx)·(Ry) = x·y.
    """

    dimensions: PositiveInt | None = Field(
        512, description="D, dimensions to project to; null: the whole vocabulary, [P, n, V]"
    )
    seed: int = Field(0, ge=0, description="the seed of the projection")
    normalize: bool = Field(True, description="L2-normalise each token before pooling")
    pooling: Pooling = Field("last", description=POOLING)

    def claim(self) -> Claim:
        return Claim(True, "a fixed function of each rollout and its context")

    def build(self, resources: Resources) -> NextTokenLogProbsMap:
        return NextTokenLogProbsMap(self, resources)


class NextTokenLogProbsMap:
    """`NextTokenLogProbs` bound to the frozen base model, with its projection."""

    def __init__(self, options: NextTokenLogProbs, resources: Resources) -> None:
        from ebft.models.decoder import decoder_blocks, text_config

        self._options, self._resources = options, resources
        self._model = resources.load_base()
        self._read = FrozenLayers(self._model, [len(decoder_blocks(self._model)[1])])
        self._projection: Tensor | None = None
        if options.dimensions is not None:
            vocabulary = text_config(self._model).vocab_size
            R = projection(vocabulary, options.dimensions, options.seed)
            self._projection = R.to(resources.device, torch.float32)

    @no_grad
    def __call__(self, rollouts: Rollouts) -> Features:
        from ebft.models.forward import autocast

        with autocast(self._resources.device, self._resources.precision):
            parts = [self._features(micro_batch) for _, micro_batch in rollouts.split()]
        samples, references = (torch.cat(column) for column in zip(*parts, strict=True))
        return Features(samples, references, per_token=self._options.pooling == "each")

    def _features(
        self, rollouts: Rollouts
    ) -> tuple[Float[Tensor, "P n F"], Float[Tensor, "P 1 F"]]:
        from ebft.models.whole import whole

        contexts = rollouts.contexts
        tree = grow_merged(rollouts.without_tails(), steps=rollouts.longest)
        (hidden,) = self._read(tree.tokens, tree.positions, tree.mask)
        rollout_hidden = tree.of_rollouts(hidden[0], contexts.rollout_length).flatten(0, 1)
        # The head is not in the layers that `_read` gathers; with LoRA it may be sharded.
        samples = whole(self._model, self._pooled, rollout_hidden, rollouts.mask.flatten(0, 1))
        references = whole(
            self._model, self._pooled, hidden[0, tree.reference_at], contexts.reference_mask
        )
        return samples.view(*rollouts.tokens.shape[:2], -1), references[:, None]

    def _pooled(
        self, hidden: Float[Tensor, "N G d"], mask: Bool[Tensor, "N G"]
    ) -> Float[Tensor, "N F"]:
        # To save memory, log-probs over the vocabulary exist for about `ROWS` tokens at a time.
        size = max(1, ROWS // hidden.shape[1])
        return torch.cat(
            [
                pool(self._log_probs(h), m, self._options.pooling)
                for h, m in zip(torch.split(hidden, size), torch.split(mask, size), strict=True)
            ]
        )

    def _log_probs(self, hidden: Float[Tensor, "N G d"]) -> Float[Tensor, "N G D"]:
        from ebft.models.log_probs import logits

        log_probs = logits(self._model, hidden.flatten(0, 1)).log_softmax(-1)
        if self._projection is not None:
            # Without autocast: a sum of 10⁵ products in bfloat16 would be mostly rounding error.
            with torch.autocast(hidden.device.type, enabled=False):
                log_probs = log_probs @ self._projection.to(log_probs.dtype)
        if self._options.normalize:
            log_probs = torch.nn.functional.normalize(log_probs, dim=-1)
        return log_probs.view(*hidden.shape[:2], -1)
