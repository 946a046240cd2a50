"""Feature map `ebft_example`: counts of pairs of neighbouring tokens."""

from pydantic import Field

import ebft
from ebft.lazy import torch


class TokenPairs(ebft.FeatureMapPart):
    """How often each pair of neighbouring tokens occurs, hashed into buckets, with L2 norm 1."""

    buckets: int = Field(512, ge=1, description="D, the number of features")

    def claim(self):
        return ebft.Claim(True, "a fixed function of each rollout's tokens")

    def base_depth(self):
        return 0.0  # none of the base model's layers run

    def __call__(self, rollouts):
        contexts = rollouts.contexts
        references = self.count(contexts.reference, contexts.reference_mask)
        return ebft.Features(self.count(rollouts.tokens, rollouts.mask), references[:, None])

    def count(self, tokens, mask):
        numbers = (31 * tokens[..., :-1] + tokens[..., 1:]) % self.buckets
        pairs = torch.nn.functional.one_hot(numbers, self.buckets)
        counts = (pairs * mask[..., 1:, None]).sum(-2).float()
        return torch.nn.functional.normalize(counts, dim=-1)


@ebft.hookimpl
def register_feature_maps():
    return {"ebft_example": TokenPairs}
