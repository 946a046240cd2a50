"""Feature map `hidden_states`: hidden states of the frozen base model."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field

from ebft.features.layers import FrozenLayers
from ebft.features.pooling import POOLING, Pooling, pool, without_end
from ebft.lazy import Tensor, no_grad, torch
from ebft.models.shape import layer_index
from ebft.parts.kinds import FeatureMapPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.merge import grow_merged
from ebft.rollout.records import Features, Rollouts

Combine = Literal["concat", "stack", "mean"]


class HiddenStates(FeatureMapPart):
    """φ from the hidden states of some layers of the frozen base model (paper, section 3.2).

    One forward over the tree computes the features of rollouts and, from the trunk, those of
    references. It stops at the deepest layer named and has no LM head. The layers of each token are
    combined as follows, then the tokens are pooled:

    - `concat`: the layers are concatenated, and L2-normalised together;
    - `stack`: each layer is L2-normalised, and the layers are concatenated and divided by √layers,
      so that ‖φ‖ = 1 and φ·φ' is the mean of the layers' cosines; `whiten_context_authors` whitens
      each layer apart, and a reward's cosine is the mean of the layers' cosines;
    - `mean`: the layers are averaged, and the average is L2-normalised.
    """

    depths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.25, 0.5, 0.75),
        min_length=1,
        description="layers, as fractions of the depth: layer max(1, ⌊L·depth⌋)",
    )
    combine: Combine = Field("concat", description="how the layers of a token become one vector")
    normalize: bool = Field(True, description="L2-normalise each token, as `combine` describes")
    pooling: Pooling = Field("last", description=POOLING)
    end_token: bool = Field(
        True,
        description="whether the end-of-sequence token of a rollout that has ended is one of its "
        "tokens; false: pool the tokens before it",
    )

    def claim(self) -> Claim:
        return Claim(True, "a fixed function of each rollout and its context")

    def base_depth(self) -> float:
        return max(self.depths)

    def build(self, resources: Resources) -> HiddenStatesMap:
        return HiddenStatesMap(self, resources)


class HiddenStatesMap:
    """`HiddenStates` bound to the frozen base model."""

    def __init__(self, options: HiddenStates, resources: Resources) -> None:
        from ebft.models.decoder import decoder_blocks

        model = resources.load_base()
        layers = len(decoder_blocks(model)[1])
        self._options, self._resources = options, resources
        self._read = FrozenLayers(model, [layer_index(f, layers) for f in options.depths])
        self._layers = 1 if options.combine == "mean" else len(options.depths)

    def __call__(self, rollouts: Rollouts) -> Features:
        (features,) = self.of_lengths(rollouts, [rollouts.contexts.rollout_length])
        return features

    @no_grad
    def of_lengths(self, rollouts: Rollouts, lengths: Sequence[int]) -> list[Features]:
        """Features of the first tokens, for each length. One forward suffices, as it is causal."""
        each = [self._features(micro_batch, lengths) for _, micro_batch in rollouts.split()]
        pooling, found = self._options.pooling, []
        # With `all`, D is ordered by token before layer, so no block belongs to one layer.
        layers = 1 if pooling == "all" else self._layers
        for of_length in zip(*each, strict=True):
            samples, references = (torch.cat(column) for column in zip(*of_length, strict=True))
            per_token = pooling == "each"
            stacked = layers > 1 and self._options.combine == "stack"
            found.append(
                Features(samples, references, layers=layers, per_token=per_token, stacked=stacked)
            )
        return found

    def _features(
        self, rollouts: Rollouts, lengths: Sequence[int]
    ) -> list[tuple[Float[Tensor, "P n F"], Float[Tensor, "P 1 F"]]]:
        from ebft.models.forward import autocast

        contexts = rollouts.contexts
        tree = grow_merged(rollouts.without_tails(), steps=rollouts.longest)
        with autocast(self._resources.device, self._resources.precision):
            hidden = self._read(tree.tokens, tree.positions, tree.mask)
        G = contexts.rollout_length
        mask, reference_mask = rollouts.mask, contexts.reference_mask
        if contexts.stop_at_eos and not self._options.end_token:
            eos = self._resources.tokenizer.eos_token_id
            mask = without_end(mask, rollouts.tokens == eos)
            reference_mask = without_end(reference_mask, contexts.reference == eos)
        samples = self._combine([tree.of_rollouts(h[0], G) for h in hidden])  # [P, n, G, D]
        references = self._combine([h[0, tree.reference_at] for h in hidden])  # [P, G, D]
        pooling = self._options.pooling

        def first(length: int) -> tuple[Float[Tensor, "P n F"], Float[Tensor, "P 1 F"]]:
            return (
                pool(samples[..., :length, :], mask[..., :length], pooling),
                pool(references[..., :length, :], reference_mask[:, :length], pooling)[:, None],
            )

        return [first(length) for length in lengths]

    def _combine(self, layers: Sequence[Float[Tensor, "*N d"]]) -> Float[Tensor, "*N D"]:
        layers = [layer.to(torch.promote_types(layer.dtype, torch.float32)) for layer in layers]
        unit = self._options.normalize
        match self._options.combine:
            case "stack":
                each = [
                    torch.nn.functional.normalize(layer, dim=-1) if unit else layer
                    for layer in layers
                ]
                return torch.cat(each, -1) / sqrt(len(layers))
            case "concat":
                joint = torch.cat(layers, -1)
            case "mean":
                joint = torch.stack(layers).mean(0)
        return torch.nn.functional.normalize(joint, dim=-1) if unit else joint
