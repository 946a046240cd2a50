"""SFT, RLVR and EBFT are one loop with different parts."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ebft.config.load import load_recipe
from ebft.models.tree_log_probs import tree_log_probs
from ebft.rollout.micro_batches import MicroBatch
from ebft.runs.setup import depth_of, make_documents, make_loop_parts, make_resources
from ebft.training.loop import train
from ebft.training.parts import Observer

NO_FEATURES = ["feature_map=null", "evaluation.evaluators=[]"]
NO_REWARD = ["sampler=null", "reward=null", "baseline=null", *NO_FEATURES]


@pytest.fixture
def prompts(tmp_path):
    """Data of prompts, each followed by one letter, and a plan that samples one letter."""
    file = tmp_path / "pairs.jsonl"
    rows = [{"q": f"a b {c}", "a": "d"} for c in "abcdefghijkl"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["data=files", f"data.path={file}", "data.prompt=q", "data.completion=a",
            "plan.rollout_length=1"]  # fmt: skip


def machinery_of(arguments):
    """What the loop of a run is given."""
    _, file, *overrides = arguments
    options = load_recipe(Path(file), overrides).options
    resources = make_resources(options.model, seed=options.seed, depth=depth_of(options))
    plan = options.plan.build(resources)
    documents = make_documents(options.data, options.documents, resources, plan)
    return make_loop_parts(
        options, resources, plan, documents.train.documents, MicroBatch(2), keep_logits=False
    )


def steps_of(arguments, steps=2):
    """The steps of a run and the loop that ran them."""
    loop = machinery_of(arguments)
    return list(train(loop, range(steps))), loop


def logged(folder):
    return (folder / "metrics.jsonl").read_text()


def test_sampling_off_policy_is_said_loudly(ebft, tiny_run):
    _, _, err = ebft(*tiny_run("sampler.top_k=2", "training.steps=1"))
    assert "OFF-POLICY: sampler: top_k and top_p sample from a part" in err
    _, _, err = ebft(*tiny_run("sampler.top_p=1.0", "training.steps=1", "overwrite=true"))
    assert "OFF-POLICY" not in err


def test_sft_runs_without_rollouts(ebft, tiny_run, tmp_path):
    status, out, err = ebft(*tiny_run("training.measure_gradients_every=2", recipe="sft_full"))
    assert status == 0, err
    assert "SFT of" in err
    assert "SFT: step 3 of 3" in err
    assert "EBFT" not in err
    assert "rollouts and their rewards" not in out
    assert "held-out CFM" in out, "CFM is still measured on held-out documents"
    metrics = logged(tmp_path / "run")
    assert "cross_entropy_noise_scale" in metrics
    for name in ("reward", "advantage", "policy_gradient", "sampler_gap", "cfm"):
        assert name not in metrics
    AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoints" / "step-000003")


def test_gradients_are_measured_where_the_rollouts_come_from(tiny_run):
    loop = machinery_of(tiny_run("lr_scheduler=null"))

    def weights():
        return torch.cat([p.detach().flatten() for p in loop.policy.parameters()])

    class Looks(Observer):
        def before_update(self, step, contexts, scored):
            sampled = scored.rollouts
            with torch.no_grad():
                now = tree_log_probs(loop.policy, sampled).rollouts
            self.gap = (now - sampled.log_probs).where(sampled.mask, 0).abs().max()
            self.weights, self.heard = weights(), [*self.heard, step]

        heard = ()

    looks, before = Looks(), weights()
    for number, _ in enumerate(train(loop, range(2), looks)):
        torch.testing.assert_close(looks.weights, before, atol=0, rtol=0)
        assert looks.gap < 1e-4
        assert looks.heard == list(range(number + 1))
        before = weights()
        assert (before != looks.weights).any(), "the step's update comes after it"


def test_sft_descends_the_models_own_loss(tiny_run, tiny_model):
    [step], _ = steps_of(tiny_run("training.clip_grad_norm=1e9", recipe="sft_full"), steps=1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    nll = tokens = 0
    for document in step.contexts.documents:
        count = document.tokens.numel() - 1
        nll += model(document.tokens[None], labels=document.tokens[None]).loss * count
        tokens += count
    (nll / tokens).backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert step.losses.policy_gradient is None
    assert step.losses.cross_entropy == pytest.approx(float(nll.detach() / tokens), rel=1e-5)
    assert step.grad_norm == pytest.approx(float(norm), rel=1e-4)


def test_methods_train_on_the_same_documents_in_the_same_order(tiny_run):
    ebft_steps, _ = steps_of(tiny_run())
    sft_steps, _ = steps_of(tiny_run(recipe="sft_full"))
    for a, b in zip(ebft_steps, sft_steps, strict=True):
        assert [d.name for d in a.contexts.documents] == [d.name for d in b.contexts.documents]
    # Of equal weights, so of the first step only.
    assert sft_steps[0].losses.cross_entropy == pytest.approx(
        ebft_steps[0].losses.cross_entropy, rel=1e-5
    )


def test_sft_is_ebft_without_its_rollouts(tiny_run):
    without, _ = steps_of(tiny_run(*NO_REWARD, "objective.gamma=1"))
    sft, _ = steps_of(tiny_run(recipe="sft_full"))
    assert [step.losses for step in without] == [step.losses for step in sft]


@pytest.mark.parametrize("recipe", ["rlvr_full", "rlvr_lora"])
def test_rlvr_runs_and_sees_no_features(ebft, tiny_run, prompts, tmp_path, recipe):
    verifier = "reward.verifier=exact_match"  # these documents have no unit tests
    status, out, err = ebft(*tiny_run(*prompts, verifier, recipe=recipe, without="plan."))
    assert status == 0, err
    assert "RLVR of" in err
    assert "step 1: rollouts and their rewards" in out
    metrics = logged(tmp_path / "run")
    assert "reward" in metrics
    for name in ("cfm", "alignment", "diversity"):
        assert name not in metrics


def test_rlvr_learns_what_is_verified(tiny_run, prompts):
    more = ["optimizer.lr=1e-2", "lr_scheduler=null", "training.documents_per_step=8",
            "reward.verifier=exact_match"]  # fmt: skip
    arguments = tiny_run(*prompts, *more, recipe="rlvr_full", without="plan.")
    steps, loop = steps_of(arguments, steps=12)
    assert loop.rollout_parts.feature_map is None
    first, last = (float(step.scored.terms.reward().mean()) for step in (steps[0], steps[-1]))
    assert last > 0.9 > 0.5 > first


def test_features_that_no_reward_uses_are_not_computed(ebft, tiny_run):
    status, _, err = ebft(*tiny_run("reward=token_overlap", "training.steps=1"))
    assert status == 0, err
    assert "feature_map: not computed in training, because the reward uses no features" in err
    assert "RLVR: step" in err
    _, out, _ = ebft(*tiny_run("reward=token_overlap"), "--dry-run")
    assert "# features " not in out
    assert "# sampling " in out


def test_the_estimate_of_sft_is_of_documents_alone(ebft, tiny_run):
    _, out, _ = ebft(*tiny_run(recipe="sft_full"), "--dry-run")
    assert "# Estimate for SFT of" in out
    assert "# A document of 40 tokens has no rollouts." in out
    assert re.search(r"# training +40 ", out)
    assert not re.search(r"# (sampling|features) ", out)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["objective.gamma=0"], "objective.gamma = 0: there is nothing to train on"),
        (["objective.importance.level=token"], "importance.level = token: weights rollouts, but"),
        (["feature_map={_component_: mean_pool}"], "feature_map: MeanPool is for a reward, but"),
        (["transforms=[{_component_: l2}]"], "transforms: change features, but the recipe has no"),
        (["training.sample_ahead=1"], "training.sample_ahead = 1: there are no rollouts, because"),
        (["reward={_component_: token_overlap}"], "sampler, baseline: missing, but the recipe has"),
    ],
)
def test_what_sft_has_no_use_for_is_refused(ebft, tiny_run, overrides, says):
    status, _, err = ebft(*tiny_run(*overrides, recipe="sft_full"))
    assert status == 2
    assert says in err


REWARD = '''
import ebft

class Same(ebft.RewardPart):
    """1 for every rollout."""
    {method}
    def pairwise(self):
        return False

    def __call__(self, rollouts, features):
        assert (features is None) == {without}
        return ebft.Terms.of_unary(rollouts.log_probs.sum(-1) * 0 + 1)

@ebft.hookimpl
def register_rewards():
    return {{"same": Same}}
'''


def test_a_reward_that_does_not_say_is_given_features(ebft, tiny_run, tmp_path):
    file = tmp_path / "same.py"
    file.write_text(REWARD.format(method="", without=False))
    same = [f"plugins=[{file}]", "reward=same", "training.steps=1"]
    status, _, err = ebft(*tiny_run(*same))
    assert status == 0, err
    status, _, err = ebft(*tiny_run(*same, *NO_FEATURES, "overwrite=true"))
    assert status == 2
    assert "feature_map: missing, but the reward Same uses features" in err
    assert "or give the class `def uses_features(self) -> bool`" in err


def test_a_reward_that_says_it_needs_none_is_given_none(ebft, tiny_run, tmp_path):
    file = tmp_path / "same.py"
    says = "def uses_features(self):\n        return False\n"
    file.write_text(REWARD.format(method=says, without=True))
    status, _, err = ebft(
        *tiny_run(f"plugins=[{file}]", "reward=same", *NO_FEATURES, "training.steps=1")
    )
    assert status == 0, err


@pytest.mark.parametrize(
    "recipe",
    ["rlvr_full", "rlvr_lora", "ebft_tiny_programs", "ebft_translation", "ebft_completion"],
)
def test_a_recipe_runs_on_its_own_data(ebft, tiny_run, recipe):
    """With its own verifier, so RLVR's runs what the tiny model writes."""
    own = ("data.", "plan.st", "documents.")
    small = ["documents.length=400", "training.steps=1", "evaluation.documents=2"]
    status, out, err = ebft(*tiny_run(*small, recipe=recipe, without=own))
    assert status == 0, err
    assert "before → after" in out
