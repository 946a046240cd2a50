"""Property 9, features: every method of the authors' feature network, token by token."""

import pytest
import torch

from ebft.features.hidden_states import HiddenStates
from ebft.plans.strided import Strided
from tests.golden.authors import resources, rollouts_of, tensors, tiny_model

L, PROMPT, G, K = 8, 20, 4, 4
QUARTERS = (0.25, 0.5, 0.75)
METHODS = {
    "concat": {"combine": "concat", "depths": QUARTERS},
    "concat_layers_2_5": {"combine": "concat", "depths": (2 / L, 5 / L)},
    "last_only": {"depths": (1.0,)},
    "layer_3": {"depths": (3 / L,)},
    "mean": {"combine": "mean", "depths": tuple(i / L for i in range(1, L + 1))},
    "middle": {"combine": "mean", "depths": (4 / L, 5 / L)},
    "middle_concat": {"combine": "concat", "depths": (4 / L, 5 / L)},
    "middle_stack": {"combine": "stack", "depths": (4 / L, 5 / L)},
    "stack": {"combine": "stack", "depths": QUARTERS},
    "stack_layers_1_4_8": {"combine": "stack", "depths": (1 / L, 4 / L, 1.0)},
}


@pytest.mark.parametrize("method", METHODS)
def test_features_of_every_token(method):
    data = tensors("features")
    sequences, expected = data["sequences"], data[f"{method}.qa0"].flatten(-2)
    plan = Strided(start=4, stride=4, rollout_length=G)
    rollouts = rollouts_of(sequences[:, :PROMPT], sequences[:, PROMPT:], plan, 1, 1.0)
    part = HiddenStates(pooling="all", **METHODS[method])
    features = part.build(resources(None, tiny_model("tiny_feature")))(rollouts)
    if part.combine == "stack":
        # Theirs keeps norm 1 for each layer, so that dot products are sums over layers; ours are
        # means, so that features have norm 1 however many layers there are.
        scale = len(part.depths) ** 0.5
        features = type(features)(features.samples * scale, features.references * scale)
    samples = features.samples.view(2, K, G, -1).transpose(1, 2).reshape(2, G * K, -1)
    torch.testing.assert_close(samples, expected[:, PROMPT:], atol=1e-5, rtol=1e-4)
    references = features.references.view(2, K, G, -1)
    for k, anchor in enumerate(range(4, 20, 4)):
        torch.testing.assert_close(
            references[:, k], expected[:, anchor : anchor + G], atol=1e-5, rtol=1e-4
        )
