"""LoRA: which weights are trained, and that the base model inside the policy is the base model."""

from importlib.metadata import version

import pytest
import torch
from packaging.version import Version
from peft import IA3Config, LoraConfig, PeftModel, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ebft.errors import UserError
from ebft.models.export import load_adapter, save_policy
from ebft.models.forward import decode
from ebft.models.layers import compile_layers
from ebft.models.lora import (
    add_adapter,
    cast_base,
    has_adapter,
    merged,
    with_adapter,
    without_adapter,
)
from ebft.models.options import LoraOptions
from ebft.models.probe import probe_tree
from ebft.models.tree_log_probs import document_log_probs, tree_log_probs
from ebft.plans.strided import Strided
from ebft.rollout.tree_mask import trunk_mask
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.models.shrink import tiny_model
from tests.tiny import (
    plain_policy,
    tiny_documents,
    tiny_policy,
    tiny_resources,
    tiny_tokenizer,
    trained_on,
)
from tests.unit.models.test_architectures import ARCHITECTURES, model

PLAN = Strided(start=3, stride=4, rollout_length=5)
CONTEXTS = PLAN(tiny_documents([19, 12]))
OPTIONS = LoraOptions(rank=3, alpha=5.0)
TARGETS = {"mamba2": ("in_proj",)}


def adapted(options=OPTIONS, seed=0, *, policy=None, moved=True):
    """A policy with an adapter, as if it had been trained for a while if it has `moved`."""
    policy = tiny_policy() if policy is None else policy
    add_adapter(policy, options, seed=seed)
    if moved:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in trained(policy).values():
                p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return policy


def trained(policy):
    return {name: p for name, p in policy.named_parameters() if p.requires_grad}


@torch.no_grad()
def log_probs(policy):
    return document_log_probs(policy, CONTEXTS)


def test_it_changes_nothing_before_it_is_trained():
    assert torch.equal(log_probs(adapted(moved=False)), log_probs(tiny_policy()))
    assert (log_probs(adapted()) - log_probs(tiny_policy())).abs().max() > 0.1


def test_only_the_adapter_is_trained():
    policy = adapted()
    assert {name.split(".")[-3] for name in trained(policy)} == {"lora_A", "lora_B"}
    targets = {name.split(".")[-4] for name in trained(policy)}
    assert targets == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    few = adapted(LoraOptions(rank=2, target_modules=("q_proj", "v_proj")))
    assert len(trained(few)) == 2 * 2 * few.config.num_hidden_layers
    assert not policy.training
    assert not any(module.training for module in policy.modules())


def test_its_start_is_that_of_the_seed_and_of_nothing_else():
    policies = [tiny_policy() for _ in range(3)]
    first = trained(adapted(policy=policies[0], moved=False))
    torch.manual_seed(17)
    state = torch.get_rng_state()
    same = trained(adapted(policy=policies[1], moved=False))
    other = trained(adapted(seed=1, policy=policies[2], moved=False))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], same[name]) for name in first)
    differ = {name.split(".")[-3] for name in first if not torch.equal(first[name], other[name])}
    assert differ == {"lora_A"}


def test_without_the_adapter_it_is_the_base_model_in_the_same_memory():
    base, policy = tiny_policy(), adapted()
    inside = without_adapter(policy)
    assert not has_adapter(inside)
    assert has_adapter(policy)
    assert torch.equal(log_probs(inside), log_probs(base))
    own = {p.data_ptr() for p in policy.parameters()}
    for name, weight in base.state_dict().items():
        assert torch.equal(inside.state_dict()[name], weight)
        assert inside.state_dict()[name].data_ptr() in own
    assert not any(p.requires_grad for p in inside.parameters())


def test_without_the_adapter_nothing_compiled_for_the_policy_is_run():
    policy = adapted()
    compile_layers(policy)
    inside = without_adapter(policy)
    assert not any(module._compiled_call_impl for module in inside.base_model.layers)
    assert all(module._compiled_call_impl for module in policy.base_model.layers)
    assert torch.equal(log_probs(inside), log_probs(tiny_policy()))


def test_merged_it_computes_what_the_policy_computes():
    policy = adapted()
    before = {name: p.clone() for name, p in policy.state_dict().items()}
    whole = merged(policy)
    torch.testing.assert_close(log_probs(whole), log_probs(policy), atol=1e-10, rtol=0)
    assert whole.state_dict().keys() == tiny_policy().state_dict().keys()
    assert all(torch.equal(p, before[name]) for name, p in policy.state_dict().items())
    plain = tiny_policy()
    assert merged(plain) is plain


def test_merged_in_bfloat16_it_is_float32_throughout_and_computes_the_same():
    policy = adapted(LoraOptions(target_modules=("q_proj",)), policy=plain_policy())
    cast_base(policy, torch.bfloat16)
    whole = merged(policy)
    assert {weight.dtype for weight in whole.state_dict().values()} == {torch.float32}
    own = dict(policy.named_parameters())
    layer = "model.layers.0.mlp.up_proj.weight"
    assert own[layer].dtype == torch.bfloat16
    assert torch.equal(whole.state_dict()[layer], own[layer].float())
    query = "model.layers.0.self_attn.q_proj"
    A, B = (own[f"{query}.lora_{it}.default.weight"] for it in "AB")
    torch.testing.assert_close(
        whole.state_dict()[f"{query}.weight"],
        own[f"{query}.base_layer.weight"].float() + 2 * B @ A,
    )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_its_gradient_follows_from_that_of_the_merged_weights(checkpointing, gamma):
    """W = W₀ + s·B·A, so ∂A = s·Bᵀ·∂W and ∂B = s·∂W·Aᵀ."""
    policy, s = adapted(), OPTIONS.alpha / OPTIONS.rank
    full = merged(policy).requires_grad_(True)
    rollouts = HfTree(n=2).build(tiny_resources(policy))(CONTEXTS, step=0)
    advantages = torch.randn(len(CONTEXTS), 2, dtype=torch.float64)
    for one in (policy, full):
        accumulate_gradients(
            one, *trained_on(rollouts, advantages, micro_batch=1), ObjectiveOptions(gamma=gamma),
            precision=torch.float32, gradient_checkpointing=checkpointing, step=0,
        )  # fmt: skip
    assert all(p.grad is None for p in policy.parameters() if not p.requires_grad)
    weights, own = dict(full.named_parameters()), trained(policy)
    for name in own:
        if "lora_A" not in name:
            continue
        A, B = own[name], own[name.replace("lora_A", "lora_B")]
        W = weights[name.replace("lora_A.default.", "")]
        torch.testing.assert_close(A.grad, s * B.T @ W.grad, atol=1e-10, rtol=1e-8)
        torch.testing.assert_close(B.grad, s * W.grad @ A.T, atol=1e-10, rtol=1e-8)
        assert A.grad.norm() > 1e-6


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_tree_equals_rows_in_every_architecture(name):
    policy, documents = model(ARCHITECTURES[name]), tiny_documents([30, 17])
    tokens = documents[0].tokens[None]
    positions, tree_mask = torch.arange(30)[None], trunk_mask([30], policy.device)
    with torch.no_grad():
        base = decode(policy, tokens, positions, tree_mask)
        adapted(policy=policy)
        assert probe_tree(policy, documents, PLAN) < 1e-4
        assert torch.equal(decode(without_adapter(policy), tokens, positions, tree_mask), base)
    r = HfTree(n=3).build(tiny_resources(policy))(PLAN(documents), step=0)
    tree_log_probs(policy, r).rollouts.sum().backward()
    assert all(p.grad.isfinite().all() for p in trained(policy).values())


def test_an_adapter_alone_loads_with_peft(tmp_path):
    base = plain_policy()
    base.save_pretrained(tmp_path / "base")
    policy = adapted(policy=plain_policy())
    save_policy(policy, tiny_tokenizer(), tmp_path, merge_adapter=False)
    assert not (tmp_path / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(base, tmp_path)
    tokens = CONTEXTS.documents[0].tokens[None]
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, policy(tokens).logits)


def test_a_merged_model_loads_with_transformers_and_has_its_adapter_inside(tmp_path):
    policy = adapted(policy=plain_policy())
    save_policy(policy, tiny_tokenizer(), tmp_path, merge_adapter=True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = CONTEXTS.documents[0].tokens[None]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(tokens).logits, policy(tokens).logits, atol=1e-4, rtol=1e-4
        )
    again = adapted(policy=plain_policy(), seed=1)
    load_adapter(again, tmp_path / "adapter")
    assert all(torch.equal(p, trained(policy)[name]) for name, p in trained(again).items())


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(target_modules=["q_proj"], use_dora=True),
        LoraConfig(target_modules=["embed_tokens"]),
        LoraConfig(target_modules=["lm_head"]),
        LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]),
        IA3Config(target_modules=["v_proj"], feedforward_modules=[]),
        VeraConfig(target_modules=["q_proj"], r=4),
    ],
    ids=["DoRA", "embedding", "head", "whole head", "IA3", "VeRA"],
)
def test_merged_another_program_s_adapter_computes_what_it_did(tmp_path, config):
    """Its embedding and head are tied, and the adapter is of one of them."""
    theirs = get_peft_model(plain_policy(), config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for p in trained(theirs).values():
            p += 0.1 * torch.randn_like(p)
    theirs.save_pretrained(tmp_path)
    ours = with_adapter(plain_policy(), tmp_path, merge=True)
    tokens = CONTEXTS.documents[0].tokens[None]
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert (plain_policy()(tokens).logits - expected).abs().max() > 1e-2
        torch.testing.assert_close(ours(tokens).logits, expected, atol=1e-4, rtol=1e-4)
        (tmp_path / "whole").mkdir()
        save_policy(ours, tiny_tokenizer(), tmp_path / "whole")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
        assert torch.equal(again(tokens).logits, ours(tokens).logits)


def test_vera_s_matrices_are_those_of_its_files_or_it_is_refused(tmp_path):
    """Releases of peft differ: before 0.20 they make the matrices anew and ignore the files."""
    theirs = get_peft_model(plain_policy(), VeraConfig(target_modules=["q_proj"], r=4))
    theirs.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    saved = load_file(file)
    lambdas = {name: torch.full_like(w, 0.5) for name, w in saved.items() if "lambda" in name}
    saved |= lambdas | {"base_model.vera_A": saved["base_model.vera_A"] / 2}
    save_file(saved, file, metadata={"format": "pt"})
    if Version(version("peft")) < Version("0.20"):
        with pytest.raises(UserError, match=r"1 of its weights are others than in its files, base"):
            with_adapter(plain_policy(), tmp_path, merge=True)
        return
    ours = with_adapter(plain_policy(), tmp_path, merge=True)
    weight, plain = (
        model.model.layers[0].self_attn.q_proj.weight for model in (ours, plain_policy())
    )
    a, b = saved["base_model.vera_A"], saved["base_model.vera_B"]
    expected = 0.25 * b[: plain.shape[0]] @ a[:, : plain.shape[1]]
    torch.testing.assert_close(weight - plain, expected, atol=1e-5, rtol=0, check_dtype=False)


@pytest.mark.parametrize("change", ["rank", "missing"])
def test_another_adapter_s_weights_are_refused(tmp_path, change):
    policy = adapted(LoraOptions(rank=4) if change == "rank" else OPTIONS)
    save_policy(policy, tiny_tokenizer(), tmp_path, merge_adapter=False)
    if change == "missing":
        file = tmp_path / "adapter_model.safetensors"
        weights = load_file(file)
        weights.popitem()
        save_file(weights, file)
    with pytest.raises(ValueError, match=r"does not fit the policy's model\.lora"):
        load_adapter(adapted(), tmp_path)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("q_porj", "q_porj: LlamaForCausalLM has no such linear layer; did you mean 'q_proj'?"),
        ("lm_head", "lm_head: LlamaForCausalLM has no such linear layer; there are: down_proj, "),
        ("embed_tokens", "embed_tokens: LlamaForCausalLM has no such linear layer"),
    ],
)
def test_layers_that_cannot_have_one_are_refused(target, says):
    with pytest.raises(UserError) as error:
        add_adapter(tiny_policy(), LoraOptions(target_modules=("v_proj", target)), seed=0)
    assert str(error.value).startswith(f"model.lora.target_modules = {says}")


@pytest.mark.parametrize(
    ("name", "experts"),
    [("qwen3_moe", True), ("qwen2_moe", True), ("qwen3", False), ("mamba2", False)],
)
def test_experts_have_no_adapter_and_that_is_said(name, experts, caplog):
    targets = TARGETS.get(name, "all-linear")
    policy = tiny_model(name)
    add_adapter(policy, LoraOptions(rank=2, target_modules=targets), seed=0)
    trained = [weight for weight, it in policy.named_parameters() if it.requires_grad]
    assert not any(".experts." in weight or ".gate." in weight for weight in trained)
    assert any(".shared_expert." in weight for weight in trained) is (name == "qwen2_moe")
    said = "8 weights of experts, such as layers.0.mlp.experts.gate_up_proj, stay as they are"
    assert (said in caplog.text) is experts
    assert bool(caplog.text) is experts


def test_without_peft_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("ebft.parts.packages.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs peft, which is not installed; run: pip install "):
        add_adapter(tiny_policy(), OPTIONS, seed=0)


def test_a_package_that_peft_refuses_is_one_line(monkeypatch):
    def refuse(*_):
        raise ImportError("Found an incompatible version of torchao. Found version 0.15.0")

    monkeypatch.setattr("peft.inject_adapter_in_model", refuse)
    with pytest.raises(UserError) as error:
        add_adapter(tiny_policy(), OPTIONS, seed=0)
    assert str(error.value) == (
        f"model.lora: peft {version('peft')}: Found an incompatible version of torchao. Found "
        "version 0.15.0; install releases that fit each other, or remove the other package: pip "
        "uninstall torchao"
    )


def test_the_base_in_the_precision_of_forwards_computes_the_same():
    """As autocast would cast it, to the last bit: values, and the adapter's gradients."""
    results = []
    for cast in (False, True):
        policy = adapted(policy=tiny_policy().float())
        if cast:
            cast_base(policy, torch.bfloat16)
            base = [p for n, p in policy.named_parameters() if "base_layer" in n]
            assert base
            assert all(p.dtype == torch.bfloat16 for p in base)
            assert all(p.dtype == torch.float32 for p in trained(policy).values())
        with torch.autocast("cpu", torch.bfloat16):
            values = document_log_probs(policy, CONTEXTS)
        values.sum().backward()
        results.append([values.detach(), *(p.grad for p in trained(policy).values())])
    for before, after in zip(*results, strict=True):
        assert torch.equal(before, after)
