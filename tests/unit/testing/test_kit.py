"""The conformance kit notices: each part here breaks one property, and the message names it."""

import copy
from dataclasses import replace

import pytest
import torch
from pydantic import Field

from ebft.features.bag_of_tokens import BagOfTokens
from ebft.parts.kinds import BaselinePart, EvaluatorPart, FeatureMapPart, RewardPart
from ebft.parts.measurements import Measurement
from ebft.parts.part import Claim, Part
from ebft.parts.splits import Example, Splits
from ebft.plans.strided import Strided
from ebft.rollout.records import Features, Rollouts, Terms
from ebft.samplers.hf_tree import HfTree, HfTreeSampler
from ebft.testing import (
    check_baseline,
    check_data,
    check_evaluator,
    check_feature_map,
    check_plan,
    check_reward,
    check_sampler,
    check_transform,
    tiny_resources,
)


def breaks(check, part, says, **options):
    with pytest.raises(AssertionError, match=says) as error:
        check(part, **options)
    assert str(error.value).startswith(f"{type(part).__name__}: ")


class Undocumented(BaselinePart):
    __doc__ = ""

    def __call__(self, terms):
        return terms.reward()


class NoDescription(BaselinePart):
    """An option that does not say what it is."""

    value: float = 0.0

    def __call__(self, terms):
        return terms.reward()


def test_options():
    breaks(check_baseline, Undocumented(), "has a docstring")
    breaks(check_baseline, NoDescription(), "option value has a description")


class Baseline(BaselinePart):
    """A baseline to break."""

    how: str = Field(description="what it does wrong")

    def claim(self):
        return Claim(self.how != "biased", "so it says")

    def __call__(self, terms):
        reward = terms.reward()
        match self.how:
            case "total":
                return reward - reward.mean(1, keepdim=True)
            case "others":
                return reward - (reward.sum(1, keepdim=True) - reward) / max(len(reward[0]) - 1, 1)
            case "shape":
                return reward.sum(1)
            case "writes":
                return reward - terms.unary.zero_()
            case "nan":
                return (reward - reward.mean(1, keepdim=True)) / (reward.shape[1] - 1)
            case "order":
                return reward - torch.arange(reward.shape[1])
            case "double":
                return reward.double()
            case _:
                return reward


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("total", r"claims to be unbiased.* for n = 2, j = 0"),
        ("others", "claims to be unbiased"),
        ("biased", "claims to be biased"),
        ("shape", r"shape \[3, 1\], not \[3\]"),
        ("writes", "does not modify its input"),
        ("nan", "with n = 1 is finite"),
        ("order", "another order"),
        ("double", "the dtype is that of the input"),
    ],
)
def test_baselines(how, says):
    breaks(check_baseline, Baseline(how=how), says)


class Reward(RewardPart):
    """A reward to break."""

    how: str = Field(description="what it does wrong")

    def pairwise(self):
        return self.how in ("diagonal", "none there", "three")

    def __call__(self, rollouts, features):
        x = features.samples
        products = x @ x.mT
        off = products - torch.diag_embed(products.diagonal(dim1=1, dim2=2))
        unary = x.sum(-1)
        match self.how:
            case "diagonal":
                return Terms(unary, products)
            case "undeclared":
                return Terms(unary, off)
            case "mixed":
                return Terms.of_unary(unary - unary.mean(1, keepdim=True))
            case "three":
                return Terms(unary, off * x.sum((1, 2))[:, None, None])
            case "number":
                return unary
            case _:
                return Terms.of_unary(unary)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("diagonal", "the diagonal of terms.pairwise is zero"),
        ("undeclared", r"pairwise\(\) says False, and pairwise terms are not all zero"),
        ("none there", r"pairwise\(\) says True, and pairwise terms are all zero"),
        ("mixed", "u_j depends on rollout j alone"),
        ("three", "depends on rollouts j and j' alone"),
        ("number", "returns ebft.Terms"),
    ],
)
def test_rewards(how, says):
    breaks(check_reward, Reward(how=how), says)


def test_a_reward_says_whether_it_has_pairs():
    breaks(check_reward, Baseline(how=""), r"derives from ebft.RewardPart")


class FeatureMap(FeatureMapPart):
    """A feature map to break."""

    how: str = Field(description="what it does wrong")

    def build(self, resources):
        bag = BagOfTokens(dimensions=6, scale="count").build(resources)
        offset = torch.rand(1) if self.how == "global" else 0

        def features(rollouts):
            whole = bag(rollouts)
            x, y = whole.samples, whole.references
            match self.how:
                case "one rollout":
                    return Features(x[:, :1], y)
                case "gradient":
                    return Features(x.requires_grad_(), y)
                case "random":
                    return Features(x + torch.rand(1), y)
                case "global":
                    return Features(x + offset, y + offset)
                case "micro-batch":
                    parts = len(list(rollouts.split()))
                    return Features(x * parts, y * parts)
                case "batch":
                    return Features(x - x.mean((0, 1)), y)
                case "group":
                    return Features(x - x.mean(1, keepdim=True), y)
                case "mask":
                    hidden = rollouts.tokens * ~rollouts.mask
                    return Features(x + hidden.sum(-1, keepdim=True), y)
                case "reference":
                    return Features(x, 2 * y)
                case "leaks":
                    return Features(x, y + x.mean(1, keepdim=True) - x.mean(1, keepdim=True)[:1])
                case "layers":
                    return replace(whole, layers=4)
                case _:
                    return whole

        return features


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("one rollout", "features.samples has shape"),
        ("gradient", "carries no gradient"),
        ("random", "called again, it gives the same"),
        ("global", "built again, it gives the same"),
        ("micro-batch", "does not depend on micro-batches"),
        ("batch", "do not depend on the other documents"),
        ("group", "reference's features|other rollouts"),
        ("mask", "outside the mask"),
        ("reference", "a rollout with the reference's tokens"),
        ("leaks", "other documents|references do not depend"),
        ("layers", "D = 6 is a multiple of layers = 4"),
    ],
)
def test_feature_maps(how, says):
    breaks(check_feature_map, FeatureMap(how=how), says)


def test_a_sound_feature_map_passes():
    check_feature_map(FeatureMap(how="sound"))


class Transform(Part):
    """A transform to break."""

    how: str = Field(description="what it does wrong")

    def build(self, resources):
        return Moving(self.how)


class Moving:
    def __init__(self, how):
        self.how, self.calls = how, 0

    def __call__(self, features):
        self.calls += 1
        x, y = features.samples, features.references
        match self.how:
            case "group":
                x = x - x.mean(1, keepdim=True)
            case "state":
                x = x * self.calls
            case "order":
                x = x * torch.arange(1.0, x.shape[1] + 1).to(x)[:, None]
            case "half":
                x = x.half()
            case "writes":
                x = x.mul_(2)
            case "references":
                y = y + x.mean(1, keepdim=True)
        return replace(features, samples=x, references=y)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("group", "do not depend on the other rollouts"),
        ("references", "do not depend on the other rollouts"),
        ("state", "with the state loaded"),
        ("order", "another order"),
        ("half", "the dtype is that of the input"),
        ("writes", "does not modify its input"),
    ],
)
def test_transforms(how, says):
    breaks(check_transform, Transform(how=how), says)


class Sampler(HfTree):
    """A sampler to break."""

    how: str = Field("", description="what it does wrong")

    def build(self, resources):
        return Broken(self, resources)


class Broken(HfTreeSampler):
    def __init__(self, options, resources):
        self.how = options.how
        self.frozen = copy.deepcopy(resources.policy)
        policy = self.frozen if self.how == "stale" else resources.policy
        seed = 0 if self.how == "seed" else resources.seed
        super().__init__(options, replace(resources, policy=policy, seed=seed))

    def sync(self, policy, *, step):
        figures = super().sync(self.frozen if self.how == "stale" else policy, step=step)
        return None if self.how == "silent" else figures

    def __call__(self, contexts, *, step) -> Rollouts:
        if self.how == "step":
            step = 0
        if self.how == "global":
            step = int(torch.randint(100, (1,)))
        if self.how == "batch":
            step += 100 * len(contexts)
        rollouts = super().__call__(contexts, step=step)
        tokens, log_probs, mask = rollouts.tokens, rollouts.log_probs, rollouts.mask
        match self.how:
            case "temperature":
                return replace(rollouts, temperature=0.5)
            case "log-probs":
                return replace(rollouts, log_probs=log_probs - 1e-3)
            case "mask":
                return replace(rollouts, mask=torch.ones_like(mask))
            case "early":
                return replace(rollouts, mask=mask & (torch.arange(mask.shape[-1]) < 2))
            case "shape":
                across = (x.transpose(1, 2) for x in (tokens, log_probs, mask))
                return Rollouts(contexts, *across, rollouts.temperature)
            case "copies":
                contexts.tokens[0, -1] = 0
        return rollouts


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("temperature", "log-probs are the policy's at temperature 0.5"),
        ("log-probs", "they are 0.001 off"),
        ("mask", "continues until end-of-sequence"),
        ("early", "has all of its G tokens"),
        ("shape", r"tokens are \[P, n, G\]"),
        ("step", "another step samples other tokens"),
        ("seed", "another seed samples other tokens"),
        ("global", "global generator"),
        ("batch", "other documents"),
        ("stale", "log-probs are the policy's"),
        ("copies", "does not modify its input"),
        ("silent", "sync returned NoneType, and must return a mapping"),
    ],
)
def test_samplers(how, says):
    breaks(check_sampler, Sampler(how=how), says)


def test_draws_from_another_distribution(monkeypatch):
    from ebft.samplers import hf_tree

    # Log-probs as they should be, of tokens drawn with squeezed random numbers.
    uniforms = hf_tree.uniforms

    def squeezed(*arguments, **options):
        uniform = uniforms(*arguments, **options)
        return lambda token: uniform(token) ** 1.3

    monkeypatch.setattr(hf_tree, "uniforms", squeezed)
    breaks(check_sampler, HfTree(), "has the policy's distribution")


def test_the_policy_is_as_it_was():
    resources = tiny_resources()
    before = copy.deepcopy(resources.policy.state_dict())
    check_sampler(HfTree(), resources)
    for name, weight in resources.policy.state_dict().items():
        assert torch.equal(weight, before[name])


class Plan(Strided):
    """A plan to break."""

    how: str = Field("", description="what it does wrong")

    def accepts(self, document):
        return self.how == "short" or super().accepts(document)

    def __call__(self, documents):
        documents = documents[:-1] if self.how == "drops" and len(documents) > 1 else documents
        contexts = super().__call__(documents)
        match self.how:
            case "reference":
                return replace(contexts, reference=contexts.reference.roll(1, 1))
            case "mask":
                return replace(contexts, reference_mask=~contexts.reference_mask)
            case "order":
                return replace(contexts, row=contexts.row.flip(0))
            case "batch":  # all anchors of a document that is alone, else the first of each
                first = contexts.row.diff(prepend=torch.tensor([-1])) > 0
                return only(contexts, first) if len(documents) > 1 else contexts
        return contexts


def only(contexts, some):
    fields = ("row", "anchor", "reference", "reference_mask")
    return replace(contexts, **{name: getattr(contexts, name)[some] for name in fields})


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("short", "shorter than shortest_document"),
        ("drops", "its documents are the argument documents"),
        ("reference", "a reference is the document's own next tokens"),
        ("mask", "masked after its end"),
        ("order", "rows ascend"),
        ("batch", "do not depend on the other documents"),
    ],
)
def test_plans(how, says):
    check_plan(Plan(stride=2, rollout_length=3))
    breaks(check_plan, Plan(how=how, stride=2, rollout_length=3), says)


class Evaluator(EvaluatorPart):
    """An evaluator to break."""

    how: str = Field("", description="what it does wrong")

    def build(self, resources):
        calls = []

        def measure(policy, documents):
            calls.append(documents)
            value = torch.tensor([float(document.tokens.sum()) for document in documents])
            weight = torch.ones(len(documents))
            match self.how:
                case "mean":
                    value = value.mean().expand(len(documents))
                case "calls":
                    value = value + len(calls)
                case "shape":
                    value = value.mean()[None]
                case "nan":
                    value = value / 0 * 0
                case "trains":
                    policy.train()
            one = Measurement("sum", "", value, weight)
            return [one, one] if self.how == "names" else [one]

        return measure


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("mean", "do not depend on the other documents"),
        ("calls", "called again"),
        ("shape", "a value and a weight for each of"),
        ("nan", "values that have weight are finite"),
        ("trains", "does not modify the policy"),
        ("names", "different names"),
    ],
)
def test_evaluators(how, says):
    check_evaluator(Evaluator())
    breaks(check_evaluator, Evaluator(how=how), says)


class Data(Part):
    """A data source to break."""

    how: str = Field("", description="what it does wrong")

    def __call__(self):
        train = [Example(f"t{i}", f"text {i}") for i in range(4)]
        held_out = [Example("h", "held out")]
        match self.how:
            case "leak":
                held_out = [Example("h", "text 0")]
            case "names":
                held_out = [Example("t0", "held out")]
            case "empty":
                train[0] = Example("t0", "")
            case "order":
                train = [Example("t", str(torch.rand(())))]
            case "nothing":
                train = held_out = []
        return Splits(train, held_out)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("leak", "no text is in two splits, as h is"),
        ("names", "names are unique"),
        ("empty", "every example of train has a text"),
        ("order", "the same train in the same order"),
        ("nothing", "train or held_out has texts"),
    ],
)
def test_data(how, says):
    check_data(Data())
    breaks(check_data, Data(how=how), says)
