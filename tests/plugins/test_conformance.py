"""Every registered part goes through the conformance kit: a new one by being registered."""

import pytest

from ebft import testing
from ebft.plugins import load_registry

CHECKS = {
    "samplers": lambda part: testing.check_sampler(part, tolerance=1e-9),
    "feature_maps": testing.check_feature_map,
    "transforms": testing.check_transform,
    "rewards": testing.check_reward,
    "baselines": testing.check_baseline,
}

BAG = {"_component_": "bag_of_tokens", "dimensions": 5}
MEAN_POOL = {"_component_": "mean_pool"}
MATCHING = {"_component_": "feature_matching"}
# What parts whose options have no default are checked with, and other options worth a check.
OPTIONS = {
    "samplers": {
        "hf_tree": [{}, {"n": 3, "temperature": 0.6}],
        "hf_generate": [{}, {"n": 3, "temperature": 0.6, "batch": 1}],
    },
    "feature_maps": {
        "bag_of_tokens": [{}, {"dimensions": None, "scale": "share"}, {"scale": "count"}],
        "concat": [
            {"maps": [{"feature_map": BAG}]},
            {"maps": [{"feature_map": BAG, "weight": 2}, {"feature_map": MEAN_POOL}]},
        ],
        "hidden_states": [{}, {"combine": "stack", "pooling": "mean"}, {"pooling": "all"}, {"pooling": "each"}],
        "logits": [{}, {"dimensions": None, "pooling": "mean"}],
    },
    "transforms": {
        "l2": [{}, {"over": "layer"}],
        "project": [{"dimensions": 3}],
        "whiten_running": [{}, {"decay": None, "steps": 2}],
    },
    "rewards": {
        "feature_matching": [
            {},
            {"diversity": 0},
            {"alignment": 0},
            {"alignment_similarity": "cosine", "diversity_similarity": "cosine"},
        ],
        "kernel": [
            *({"kernel": k} for k in ("linear", "cosine", "rbf", "multi_rbf", "laplace", "energy")),
            {"kernel": "polynomial", "degree": 3},
            {"diversity": 0},
        ],
        "token_overlap": [{}, {"order": 2}],
        "weighted_sum": [
            {"rewards": [{"reward": MATCHING}, {"reward": {"_component_": "token_overlap"}}]},
            {"rewards": [{"reward": {"_component_": "token_overlap"}, "weight": 0.5}]},
        ],
    },
}  # fmt: skip
REGISTRY = load_registry()
CASES = [
    pytest.param(kind, name, options, id=f"{kind}-{name}-{number}")
    for kind in CHECKS
    for name, part in REGISTRY.kinds()[kind].items()
    if part.origin.startswith("ebft (")  # installed plug-ins have tests of their own
    for number, options in enumerate(OPTIONS.get(kind, {}).get(name, [{}]))
]


@pytest.mark.parametrize(("kind", "name", "options"), CASES)
def test_it_conforms(kind, name, options):
    CHECKS[kind](REGISTRY.parse(kind, {"_component_": name, **options}))
