"""Every registered part goes through the conformance kit: a new one by being registered."""

from pathlib import Path

import pytest

import ebft
from ebft import testing
from ebft.parts.registry import load_registry

SOURCES = Path(ebft.__file__).parent
ROWS = SOURCES.parent / "tests/fuzz/corpus/data/rows.jsonl"
ELSEWHERE = {"gettext", "gsm8k", "hub", "humaneval", "humaneval_x", "mbpp", "multipl_e",
             "opencode_instruct", "test_set"}  # fmt: skip
"""Data sources that the tests of their own formats check, on files that those write."""
CHECKS = {
    "data": testing.check_data,
    "plans": testing.check_plan,
    "evaluators": lambda part: testing.check_evaluator(part, tolerance=1e-9),
    "samplers": lambda part: testing.check_sampler(part, tolerance=1e-9),
    "feature_maps": testing.check_feature_map,
    "transforms": testing.check_transform,
    "rewards": testing.check_reward,
    "baselines": testing.check_baseline,
}

STRIDED = {"_component_": "strided", "start": 6, "stride": 4, "rollout_length": 8}
BAG = {"_component_": "bag_of_tokens", "dimensions": 5}
MEAN_POOL = {"_component_": "mean_pool"}
MATCHING = {"_component_": "feature_matching"}
# What parts whose options have no default are checked with, and other options worth a check.
OPTIONS = {
    "data": {
        "files": [{"path": ROWS, "prompt": "q", "completion": "a", "held_out": 0.25}],
        "python_files": [{"path": SOURCES / "rollout"}],
        "python_functions": [{"path": SOURCES / "models"}],
        "tiny_programs": [{"train": 60, "held_out": 20, "out_of_distribution": 20}],
        "arithmetic_traces": [
            {"train": 60, "held_out": 20, "out_of_distribution": 20},
            {"train": 60, "most_operations": 6, "modulus": 97},
        ],
    },
    "plans": {
        "strided": [{}, {"start": 1, "stride": 1, "rollout_length": 1}, {"start": 6, "stride": 4}],
        "completion": [{"rollout_length": 1}, {"rollout_length": 6}],
    },
    "evaluators": {
        "cross_entropy": [{}, {"tokens": "all"}],
        "feature_matching_loss": [{"plan": STRIDED, "feature_map": MEAN_POOL}],
        "feature_matching_by_length": [
            {"plan": STRIDED, "feature_map": MEAN_POOL, "lengths": [2, 8]},
        ],
        "kernel_score": [{"plan": STRIDED, "feature_map": BAG}],
        "entropy_drift": [{"plan": STRIDED}],
        "accuracy": [{"verifier": "exact_match", "rollout_length": 4, "n": 2, "k": [1, 2]}],
        "translation": [{"rollout_length": 6}],
    },
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
        "hidden_states": [
            {}, {"combine": "stack", "pooling": "mean"}, {"pooling": "all"}, {"pooling": "each"},
        ],
        "next_token_log_probs": [{}, {"dimensions": None, "pooling": "mean"}],
        "teacher_references": [
            {"teacher": "tiny", "feature_map": BAG},
            {"teacher": "tiny", "feature_map": MEAN_POOL, "m": 2, "temperature": 0.7},
        ],
    },
    "transforms": {
        "l2": [{}, {"over": "layer"}],
        "project": [{"dimensions": 3}],
        "whiten_running": [{}, {"decay": None, "refresh_every": 1, "freeze_after": 2}],
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
        "reverse_kl": [{"teacher": "tiny"}],
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
    if name not in ELSEWHERE
    for number, options in enumerate(OPTIONS.get(kind, {}).get(name, [{}]))
]


@pytest.mark.parametrize(("kind", "name", "options"), CASES)
def test_it_conforms(kind, name, options):
    CHECKS[kind](REGISTRY.parse(kind, {"_component_": name, **options}))
