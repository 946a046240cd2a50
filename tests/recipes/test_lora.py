"""The methods with LoRA: whole runs in which only an adapter is trained."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ebft.config.load import load_recipe
from ebft.models.load import load_frozen
from ebft.models.quantize import is_quantized
from ebft.rollout.micro_batches import MicroBatch
from ebft.runs.setup import depth_of, make_documents, make_loop_parts, make_resources
from ebft.training.loop import train

QLORA = "model.lora.quantize_base=true"
TOKENS = torch.arange(3, 12)[None]


def run(arguments, steps=2):
    """The steps of a run, its loop and its resources."""
    _, file, *overrides = arguments
    options = load_recipe(Path(file), overrides).options
    resources = make_resources(options.model, seed=options.seed, depth=depth_of(options))
    plan = options.plan.build(resources)
    documents = make_documents(options.data, options.documents, resources, plan)
    loop = make_loop_parts(
        options, resources, plan, documents.train.documents, MicroBatch(2), keep_logits=False
    )
    return list(train(loop, range(steps))), loop, resources


def test_only_the_adapter_moves_and_features_stay_those_of_the_base(tiny_run, tiny_model):
    fast = ["optimizer.lr=0.05", "lr_scheduler=null"]
    _, file, *overrides = arguments = tiny_run(*fast, recipe="ebft_lora")
    (step, *_), loop, resources = run(arguments, steps=3)
    policy = resources.policy
    base = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    after = {k.replace(".base_layer", ""): w for k, w in policy.state_dict().items()}
    assert all(torch.equal(after[name], weight) for name, weight in base.items())
    moved = [p for name, p in policy.named_parameters() if "lora_B" in name]
    assert all(p.abs().max() > 0.01 for p in moved)
    groups = loop.optimizer.param_groups
    optimized = {id(p) for group in groups for p in group["params"]}
    assert optimized == {id(p) for p in policy.parameters() if p.requires_grad}

    options = load_recipe(Path(file), overrides).options
    loaded = load_frozen(options.model, torch.float32)
    own = options.feature_map.build(resources)(step.scored.rollouts)
    separate = type(resources)(
        **{name: getattr(resources, name) for name in resources.__slots__}
        | {"load_base": lambda: loaded}
    )
    theirs = options.feature_map.build(separate)(step.scored.rollouts)
    torch.testing.assert_close(own.samples, theirs.samples, atol=1e-6, rtol=0)
    torch.testing.assert_close(own.references, theirs.references, atol=1e-6, rtol=0)


def test_the_first_step_has_the_losses_of_full_fine_tuning(tiny_run):
    [lora], *_ = run(tiny_run(recipe="ebft_lora"), steps=1)
    [full], *_ = run(tiny_run(), steps=1)
    assert torch.equal(lora.scored.rollouts.tokens, full.scored.rollouts.tokens)
    assert torch.equal(lora.scored.rollouts.log_probs, full.scored.rollouts.log_probs)
    assert torch.equal(lora.scored.advantages, full.scored.advantages)
    assert lora.losses == full.losses
    assert lora.grad_norm != full.grad_norm


def test_every_sampler_samples_with_the_adapter(tiny_run):
    fast = ["optimizer.lr=0.05", "lr_scheduler=null"]
    tree, *_ = run(tiny_run(*fast, recipe="ebft_lora"))
    rows, *_ = run(tiny_run(*fast, "sampler=hf_generate", recipe="ebft_lora"))
    for a, b in zip(tree, rows, strict=True):
        assert torch.equal(a.scored.rollouts.tokens, b.scored.rollouts.tokens)
        assert b.losses.policy_gradient.sampler_gap < 1e-4


@pytest.mark.parametrize("merge", [False, True])
def test_checkpoints_load_elsewhere(ebft, tiny_run, tiny_model, tmp_path, merge):
    more = [f"checkpoint.merge_adapter={str(merge).lower()}", "optimizer.lr=0.05"]
    status, out, err = ebft(*tiny_run(*more, recipe="ebft_lora"))
    assert status == 0, err
    assert re.search(r"EBFT of .*: \d\.\d M parameters of which 0\.\d\d M are trained", err)
    assert "held-out CFM" in out
    folder = tmp_path / "run" / "checkpoints" / "step-000003"
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        untrained = base(TOKENS).logits
        adapter = PeftModel.from_pretrained(base, folder / "adapter" if merge else folder)
        trained = adapter(TOKENS).logits
        assert (trained - untrained).abs().max() > 0.01
        if merge:
            whole = AutoModelForCausalLM.from_pretrained(folder)(TOKENS).logits
            torch.testing.assert_close(whole, trained, atol=1e-4, rtol=1e-4)
    assert (folder / "model.safetensors").exists() == merge
    assert (folder / "tokenizer.json").exists()


def test_qlora_trains_features_and_merges_with_the_weights_in_4_bits(ebft, tiny_run, tmp_path):
    fast = ["optimizer.lr=0.05", "lr_scheduler=null", QLORA]
    (step, *_), _, resources = run(tiny_run(*fast, recipe="ebft_lora"), steps=3)
    layers = {n: w for n, w in resources.policy.named_parameters() if "base_layer" in n}
    assert layers
    assert all(is_quantized(weight) for weight in layers.values())
    assert resources.load_base().model.layers[0].mlp.up_proj.weight is next(
        w for n, w in layers.items() if "layers.0.mlp.up_proj" in n
    )
    assert step.losses.policy_gradient.sampler_gap < 1e-4

    status, _, err = ebft(*tiny_run(*fast, "checkpoint.merge_adapter=true", recipe="ebft_lora"))
    assert status == 0, err
    folder = tmp_path / "run" / "checkpoints" / "step-000003"
    with torch.no_grad():
        ours = resources.policy(TOKENS).logits  # those of the same three steps
        theirs = AutoModelForCausalLM.from_pretrained(folder)(TOKENS).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_training_goes_on_from_an_adapter(ebft, tiny_run, tiny_model, tmp_path):
    fast = ["optimizer.lr=0.05", "lr_scheduler=null", "evaluation.evaluators=[]"]
    assert ebft(*tiny_run(*fast, recipe="ebft_lora"))[0] == 0
    adapter = tmp_path / "run" / "checkpoints" / "step-000003"
    start = [*fast, f"model.path={adapter}", f"model.base={tiny_model}"]
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        first = PeftModel.from_pretrained(base, adapter)(TOKENS).logits

    steps, _, resources = run(tiny_run(*start), steps=1)  # all weights
    assert all(p.requires_grad for p in resources.policy.parameters())
    assert steps[0].grad_norm > 0

    again = [*start, f"output_dir={tmp_path / 'again'}"]
    status, _, err = ebft(*tiny_run(*again, recipe="ebft_lora"))
    assert status == 2
    assert "would be missing from checkpoints" in err
    still = [*again, "checkpoint.merge_adapter=true", "optimizer.lr=0"]
    status, _, err = ebft(*tiny_run(*still, recipe="ebft_lora"))
    assert status == 0, err
    whole = tmp_path / "again" / "checkpoints" / "step-000003"
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(whole)(TOKENS).logits
    torch.testing.assert_close(logits, first, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("base", [[], [QLORA], ["model.precision=bfloat16"]])
@pytest.mark.parametrize("merge", [False, True])
def test_a_run_is_resumed_to_the_last_bit(ebft, tiny_run, tmp_path, merge, base):
    steps = ["training.steps=4", "optimizer.lr=0.05", "evaluation.evaluators=[]",
             f"checkpoint.merge_adapter={str(merge).lower()}", *base]  # fmt: skip
    whole, parts = (tmp_path / name for name in ("whole", "parts"))
    arguments = tiny_run(*steps, recipe="ebft_lora")
    assert ebft(*arguments, f"output_dir={whole}")[0] == 0
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "step-000004")
    status, _, err = ebft(*arguments, f"output_dir={parts}", "checkpoint.resume=auto")
    assert status == 0, err
    assert "resuming after step 2" in err
    one, two = (folder / "checkpoints" / "step-000004" for folder in (whole, parts))
    files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert len(files) == (3 if merge else 2)
    for file in files:
        a, b = load_file(one / file), load_file(two / file)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a), file


@pytest.mark.parametrize("quantize", [[], [QLORA]])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sft_learns_in_an_adapter(tiny_run, precision, quantize):
    more = ["optimizer.lr=0.02", "lr_scheduler=null", "training.gradient_checkpointing=true",
            f"model.precision={precision}", *quantize]  # fmt: skip
    steps, *_ = run(tiny_run(*more, recipe="sft_lora"), steps=20)
    assert steps[0].scored is None
    assert steps[-1].losses.cross_entropy < steps[0].losses.cross_entropy - 0.3


def test_gradients_are_measured(ebft, tiny_run):
    status, _, err = ebft(*tiny_run("training.measure_gradients_every=3", recipe="ebft_lora"))
    assert status == 0, err
    assert re.search(r"gradients: policy_gradient_grad_norm [\d.]+", err)


def test_the_estimate_has_one_model_and_trains_the_adapter_alone(ebft, tiny_run):
    def gib(recipe, *more):
        arguments = tiny_run(*more, recipe=recipe, without="model.path")
        _, out, err = ebft(*arguments, "model.path=smollm2-135m-instruct", "--dry-run")
        assert "Estimate for EBFT" in out, err
        rows = re.findall(r"# (weights|gradients|Adam|frozen model|training) .* ([\d.]+)\n", out)
        return {name: float(value) for name, value in rows}

    full, lora = gib("ebft_full"), gib("ebft_lora")
    assert full["frozen model"] == 0.50
    assert lora["frozen model"] == 0
    adapter = 30 * 16 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
    assert lora["gradients"] == round(4 * adapter / 2**30, 2)
    assert lora["Adam"] == round(8 * adapter / 2**30, 2)
    assert lora["training"] < full["training"]
    small = gib("ebft_lora", QLORA)
    matrices = 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    assert lora["weights"] - small["weights"] == pytest.approx(
        matrices * (4 - 0.5 - 1 / 64) / 2**30, abs=0.01
    )
    few = gib("ebft_lora", "model.lora.target_modules=[q_proj]", "model.lora.rank=256")
    assert few["gradients"] == round(4 * 30 * 256 * (576 + 576) / 2**30, 2)


def test_a_wrong_layer_is_one_line(ebft, tiny_run):
    status, _, err = ebft(*tiny_run("model.lora.target_modules=[q_porj]", recipe="ebft_lora"))
    assert status == 2
    assert err.strip().splitlines()[-1] == (
        "model.lora.target_modules = q_porj: LlamaForCausalLM has no such linear layer; "
        "did you mean 'q_proj'?"
    )
    assert "Traceback" not in err
