"""Compiled layers train what plain ones do, and sampling does not go through them."""

import pytest
import torch
from torch._dynamo.utils import counters

from ebft.errors import UserError
from ebft.models import layers
from ebft.models.layers import compile_layers
from ebft.plans.strided import Strided
from ebft.samplers.hf_generate import HfGenerate
from ebft.samplers.hf_tree import HfTree
from ebft.training.gradients import measure_gradients
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.tiny import tiny_documents, tiny_policy, tiny_resources, trained_on

STRIDED = Strided(start=2, stride=3, rollout_length=4)


@pytest.fixture
def policy():
    torch._dynamo.reset()
    counters.clear()
    policy = tiny_policy()
    yield policy
    torch._dynamo.reset()


def advantages(rollouts):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*rollouts.tokens.shape[:2], generator=generator).double()


def gradient(policy, rollouts, *, gradient_checkpointing=False):
    policy.zero_grad()
    accumulate_gradients(
        policy, *trained_on(rollouts, advantages(rollouts), micro_batch=2),
        ObjectiveOptions(gamma=0.3),
        precision=torch.float32, gradient_checkpointing=gradient_checkpointing, step=0,
    )  # fmt: skip
    return torch.cat([p.grad.flatten() for p in policy.parameters()])


def sample(policy, lengths):
    return HfTree(n=3).build(tiny_resources(policy))(STRIDED(tiny_documents(lengths)), step=0)


@pytest.mark.slow  # a minute of compiling
def test_gradients_are_the_same_and_other_trees_do_not_compile_anew(policy):
    rollouts = [sample(policy, lengths) for lengths in ([20, 9, 14], [31, 12], [25, 17, 8, 11])]
    expected = [gradient(policy, some) for some in rollouts]
    compile_layers(policy)
    graphs = []
    for some, same in zip(rollouts, expected, strict=True):
        torch.testing.assert_close(gradient(policy, some), same, atol=1e-12, rtol=1e-9)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0, "something was compiled"
    assert graphs[-1] == graphs[1], "sizes are symbols from the second on"
    checkpointed = gradient(policy, rollouts[0], gradient_checkpointing=True)
    torch.testing.assert_close(checkpointed, expected[0], atol=1e-12, rtol=1e-9)
    policy.zero_grad()
    # A part's gradient, and then the other's, from one forward.
    measured = measure_gradients(
        policy, *trained_on(rollouts[0], advantages(rollouts[0])), ObjectiveOptions(gamma=0.3),
        precision=torch.float32, gradient_checkpointing=False,
    )  # fmt: skip
    assert measured["grad_norm_ratio"] > 0


@pytest.mark.parametrize("sampler", [HfTree(n=3), HfGenerate(n=3)])
def test_sampling_compiles_nothing(policy, sampler):
    contexts = STRIDED(tiny_documents([20, 9, 14]))
    expected = sampler.build(tiny_resources(policy))(contexts, step=0)
    compile_layers(policy)
    rollouts = sampler.build(tiny_resources(policy))(contexts, step=0)
    assert torch.equal(rollouts.tokens, expected.tokens)
    assert not counters["stats"]


@pytest.mark.parametrize("sampler", [HfTree(n=3), HfGenerate(n=3)])
def test_sampling_from_plain_layers_leaves_other_code_compiled(policy, sampler):
    compiled_calls = []

    def backend(graph, _inputs):
        compiled_calls.append(graph)
        return graph.forward

    kernel = torch.compile(lambda x: 2 * x, backend=backend)

    def uses_kernel(*_):
        kernel(torch.ones(2))

    policy.get_input_embeddings().register_forward_hook(uses_kernel)
    sampler.build(tiny_resources(policy))(STRIDED(tiny_documents([20])), step=0)
    assert compiled_calls


def test_without_a_compiler_it_is_refused(policy, monkeypatch):
    monkeypatch.setattr(layers, "COMPILERS", ("no-such-compiler",))
    with pytest.raises(UserError, match=r"training.compile = true: .* install g\+\+"):
        compile_layers(policy)
