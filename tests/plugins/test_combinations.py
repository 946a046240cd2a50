"""Any sampler with any feature map, reward and baseline: one line of a recipe each, two steps."""

import math

import pytest

from ebft.config.load import load_recipe
from ebft.parts.registry import load_registry
from ebft.rollout.micro_batches import MicroBatch
from ebft.runs.setup import depth_of, make_documents, make_loop_parts, make_resources
from ebft.training.loop import train
from tests.conftest import RECIPES
from tests.plugins.pairwise import cover_pairs, pairs

SWAPS = {"sampler": "samplers", "feature_map": "feature_maps", "reward": "rewards",
         "baseline": "baselines"}  # fmt: skip
# What parts that have an option without a default are given beside their name.
BAG, POOL = "{feature_map: {_component_: bag_of_tokens}}", "{feature_map: {_component_: mean_pool}}"
MATCH, SHARE = "{reward: {_component_: feature_matching}}", "{reward: {_component_: token_overlap}}"
# TEACHER stands for the folder of a model.
NEEDED = {
    "concat": [f"feature_map.maps=[{BAG}, {POOL}]"],
    "teacher_references": [
        "feature_map.feature_map={_component_: mean_pool}", "feature_map.teacher=TEACHER",
    ],
    "weighted_sum": [f"reward.rewards=[{MATCH}, {SHARE}]"],
    "reverse_kl": ["reward.teacher=TEACHER"],
}  # fmt: skip
CHOICES = {
    key: [name for name, part in load_registry().kinds()[kind].items() if "ebft (" in part.origin]
    for key, kind in SWAPS.items()
}
FEATURELESS = {"token_overlap": "RLVR", "verifiable": "RLVR", "reverse_kl": "distillation"}
COMBINATIONS = cover_pairs(CHOICES)
PLANS = {
    "ebft_full": ["plan.start=8", "plan.stride=8", "plan.rollout_length=4"],
    "ebft_completion": ["plan.rollout_length=5"],
}


@pytest.fixture
def load(tiny_model, python_folder, tmp_path):
    """A recipe of ours as a run of seconds, with lines swapped."""

    def load(recipe: str, *swaps: str):
        pairs_file = tmp_path / "pairs.jsonl"
        pairs_file.write_text(
            "".join(f'{{"q": "a b {c}", "a": "{c} d e {c}"}}\n' for c in "abcdefghijkl")
        )
        data = {
            "ebft_full": [f"data.path={python_folder}", "data.held_out=0.25"],
            "ebft_completion": ["data=files", f"data.path={pairs_file}", "data.prompt=q",
                                "data.completion=a"],
        }[recipe]  # fmt: skip
        small = ["documents.length=40", "training.documents_per_step=3", "training.micro_batch=2",
                 f"model.path={tiny_model}", f"output_dir={tmp_path / 'run'}"]  # fmt: skip
        given = [swap.replace("TEACHER", str(tiny_model)) for swap in swaps]
        return load_recipe(RECIPES / f"{recipe}.yaml", [*data, *small, *PLANS[recipe], *given])

    return load


@pytest.mark.parametrize("recipe", PLANS)
@pytest.mark.parametrize("choice", COMBINATIONS, ids=lambda choice: "-".join(choice.values()))
def test_two_steps(load, choice, recipe):
    swaps = [f"{key}={name}" for key, name in choice.items()]
    more = [option for name in choice.values() for option in NEEDED.get(name, ())]
    options = load(recipe, *swaps, *more).options
    resources = make_resources(options.model, seed=options.seed, depth=depth_of(options))
    plan = options.plan.build(resources)
    documents = make_documents(options.data, options.documents, resources, plan)
    before = {name: p.clone() for name, p in resources.policy.named_parameters()}
    loop = make_loop_parts(
        options, resources, plan, documents.train.documents, MicroBatch(2), keep_logits=False
    )
    steps = list(train(loop, range(2)))
    assert len(steps) == 2
    for step in steps:
        loss, sampler_gap, _ = step.losses.policy_gradient
        assert all(map(math.isfinite, (loss, step.losses.cross_entropy)))
        assert sampler_gap < 1e-4, "the trainer's log-probs are the sampler's"
        assert step.grad_norm > 0
        assert step.scored.advantages.isfinite().all()
        assert (step.scored.features is None) == (choice["reward"] in FEATURELESS)
    changed = [not p.equal(before[name]) for name, p in resources.policy.named_parameters()]
    assert all(changed), "every weight has been trained"


NO_FEATURES = ["feature_map=null", "evaluation.evaluators=[]"]


@pytest.mark.parametrize("reward", CHOICES["reward"])
def test_rewards_say_whether_they_need_a_feature_map(load, reward):
    swaps = [f"reward={reward}", *NEEDED.get(reward, ()), *NO_FEATURES]
    if reward in FEATURELESS:
        assert load("ebft_full", *swaps).options.method == FEATURELESS[reward]
        return
    with pytest.raises(ValueError, match=r"feature_map: missing, but the reward \w+ uses features"):
        load("ebft_full", *swaps)


def test_every_two_parts_meet():
    met = set().union(*map(pairs, COMBINATIONS))
    for a, b in ((a, b) for a in CHOICES for b in CHOICES if a < b):
        for one in CHOICES[a]:
            assert all(frozenset({(a, one), (b, two)}) in met for two in CHOICES[b])


def test_a_part_without_its_options_is_refused_with_a_reason(load):
    for name, options in NEEDED.items():
        key = options[0].partition(".")[0]
        with pytest.raises(ValueError, match=rf"{key}\.\w+: missing; it has no default"):
            load("ebft_full", f"{key}={name}")


@pytest.mark.parametrize("reward", ["feature_matching", "kernel", "weighted_sum"])
@pytest.mark.parametrize("sampler", CHOICES["sampler"])
def test_pairs_of_one_rollout_are_refused(load, sampler, reward):
    with pytest.raises(ValueError, match=r"sampler\.n = 1: the reward compares"):
        load("ebft_full", f"sampler={sampler}", "sampler.n=1", f"reward={reward}",
             *NEEDED.get(reward, ()))  # fmt: skip


@pytest.mark.parametrize("baseline", CHOICES["baseline"])
def test_biased_baselines_are_refused_where_the_recipe_says_so(load, baseline):
    part = load_registry().find("baselines", baseline)
    swaps = ["require_unbiased=true", f"baseline={baseline}"]
    if part().claim().unbiased:
        load("ebft_full", *swaps)
        return
    with pytest.raises(ValueError, match=rf"baseline: {part.__name__} does not keep the gradient"):
        load("ebft_full", *swaps)
