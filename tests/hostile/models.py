"""Models, tokenizers and adapters that must be refused with one line."""

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

from tests.hostile.case import Case, Inputs

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
Weights = dict[str, object]
MAKES_MATRICES_ANEW = Version(version("peft")) < Version("0.20")
"""Newer releases of peft read VeRA's random matrices from the files; test_lora.py has both."""


def model(*damages: Callable[[Path], None], path: str = "model.path"):
    """Overrides that name a copy of the tiny model, damaged."""

    def make(inputs: Inputs) -> list[str]:
        folder = shutil.copytree(inputs.model, inputs.folder / "model")
        for damage in damages:
            damage(folder)
        return [f"{path}={folder}"]

    return make


def adapter(*damages: Callable[[Path], None], config: Callable[[], object] | None = None):
    """Overrides that name an adapter of the tiny model, damaged."""

    def make(inputs: Inputs) -> list[str]:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(inputs.model)
        kind = LoraConfig(target_modules=["q_proj"]) if config is None else config()
        folder = inputs.folder / "adapter"
        get_peft_model(base, kind).save_pretrained(folder)
        for damage in damages:
            damage(folder)
        return [f"model.path={folder}", f"model.base={inputs.model}"]

    return make


def prompt_tuning() -> object:
    from peft import PromptTuningConfig

    return PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")


def vera() -> object:
    from peft import VeraConfig

    return VeraConfig(target_modules=["q_proj"], r=4)


def file(name: str, content: str):
    return lambda folder: folder.joinpath(name).write_text(content)


def cut(name: str):
    return lambda folder: folder.joinpath(name).write_bytes(folder.joinpath(name).read_bytes()[:-9])


def edited(name: str, **values: object):
    """Other values in a file of JSON."""

    def damage(folder: Path) -> None:
        said = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**said, **values}))

    return damage


def weights(change: Callable[[Weights], Weights], name: str = WEIGHTS):
    """Other weights in the file."""

    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        save_file(change(load_file(folder / name)), folder / name, {"format": "pt"})

    return damage


def renamed(old: str, new: str, name: str = WEIGHTS):
    return weights(lambda them: {key.replace(old, new): it for key, it in them.items()}, name)


def without(part: str, name: str = WEIGHTS):
    return weights(lambda them: {key: it for key, it in them.items() if part not in key}, name)


def biased(them: Weights) -> Weights:
    import torch

    return {**them, "model.layers.0.self_attn.q_proj.bias": torch.ones(32)}


def scaled(them: Weights) -> Weights:
    import torch

    return {**them, "model.layers.0.self_attn.q_proj.weight_scale": torch.ones(1)}


def halved(them: Weights) -> Weights:
    return {**them, "base_model.vera_A": them["base_model.vera_A"] / 2}


def tokens(**more: object):
    """A tokenizer with a token more than the embedding has rows."""

    def damage(folder: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        if more:
            tokenizer.add_special_tokens(more)
        else:
            tokenizer.add_tokens(["abc"])
        tokenizer.save_pretrained(folder)

    return damage


def saved_as_bin(folder: Path) -> None:
    """Weights that would be loaded, if such files were read."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def saved_as_bin_beside_others(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "adapter.safetensors")
    saved_as_bin(folder)


def config(**values: object):
    return model(edited("config.json", **values))


def new(sizes: str, tokenizer: str = "bytes"):
    """Overrides that make a new model."""
    return lambda _: [
        "model.path=null",
        f"model.from_config={{tokenizer: {tokenizer}, config: {sizes}}}",
    ]


def adapter_config(**values: object):
    return edited("adapter_config.json", **values)


def quantised(method: str):
    return config(quantization_config={"quant_method": method, "bits": 4})


CASES = [
    Case("no weights of a layer", model(without("layers.2.")),
         "its files lack 9 weights (model.layers.2.self_attn.q_proj.weight, "),
    Case("no LM head", config(tie_word_embeddings=False), "lack 1 weight (lm_head.weight); give a"),
    Case("names of DDP", model(renamed("model.", "module.model.")), "have 'module.' in them, as a"),
    Case("names of compiled layers", model(renamed("self_attn.", "self_attn._orig_mod.")),
         "their names have '_orig_mod.' in them"),
    Case("a bias without a place", model(weights(biased)),
         "has no place for 1 weight (model.layers.0.self_attn.q_proj.bias) of its files"),
    Case("scales without a place", model(weights(scaled)),
         "has no place for 1 weight (model.layers.0.self_attn.q_proj.weight_scale) of its files"),
    Case("a layer more in the files", config(num_hidden_layers=3), "has no place for 9 weights ("),
    Case("other weights beside", model(file(f"{WEIGHTS}.index.json", '{"weight_map": {"a": "b"}}')),
         "which names other files, and nothing says which are meant"),
    Case("weights that can run code", model(saved_as_bin), "in .bin files alone, which are not"),
    Case("weights that can run code beside others", model(saved_as_bin_beside_others),
         "no file named model.safetensors"),
    Case("other shapes", config(intermediate_size=64),
         "model.layers.0.mlp.down_proj.weight has the shape [32, 48] in its files, and [32, 64]"),
    Case("ten million layers", config(num_hidden_layers=10**7),
         "num_hidden_layers = 10000000, and its files hold 38 weights"),
    Case("layers of GPT-2", config(model_type="gpt2", n_layer=10**12), "n_layer = 1000000000000"),
    Case("weights cut off", model(cut(WEIGHTS)), f"({WEIGHTS} is damaged or cut off: "),
    Case("empty weights", model(file(WEIGHTS, "")), f"({WEIGHTS} is empty); give smollm2"),
    Case("a pointer for weights", model(file(WEIGHTS, LFS)), f"({WEIGHTS} is a pointer of Git LFS"),
    Case("a pointer for a tokenizer", model(file("tokenizer.json", LFS)),
         "(tokenizer.json is a pointer of Git LFS and not the file: run `git lfs pull`"),
    Case("a nested tokenizer", model(file("tokenizer.json", "[" * 10**5)),
         "(tokenizer.json is damaged or cut off: "),
    Case("an empty tokenizer", model(file("tokenizer.json", "{}")), "has no tokenizer that"),
    Case("a nested configuration", model(file("config.json", "[" * 10**5)),
         "(config.json is damaged or cut off: "),
    Case("GPTQ", quantised("gptq"), "its weights are quantised (gptq), and cannot be trained;"),
    Case("bitsandbytes", quantised("bitsandbytes"), "quantised (bitsandbytes)"),
    Case("an unknown quantisation", quantised("exotic"), "quantised (exotic)"),
    Case("quantised inside", config(text_config={"compression_config": {"format": "dense"}}),
         "quantised (compression_config)"),
    Case("heads that do not divide", config(num_attention_heads=3), "of attention heads (3)"),
    Case("a size in words", config(hidden_size="32"), "Field 'hidden_size' expected int, got str"),
    Case("a padding beyond the vocabulary", config(pad_token_id=10**5), "Padding_idx must be"),
    Case("a token beyond the embedding", model(tokens()),
         "(1, the first 'abc' of number 24, and the embedding has 24 rows); give the tokenizer"),
    Case("an end beyond the embedding", model(tokens(eos_token="<end>")), "the first '<end>' of"),
    Case("a base that is not there", lambda inputs: ["model.base=./nowhere"],
         "model.base = ./nowhere: no such folder"),
    Case("a damaged base", model(file(WEIGHTS, LFS), path="model.base"),
         f"model: cannot be loaded ({WEIGHTS} is a pointer of Git LFS"),
    Case("no architecture", new("{hidden_size: 32}"), "model.from_config.config.model_type"),
    Case("an unknown architecture", new("{model_type: lama}"), "did you mean 'llama'?"),
    Case("an unknown size", new("{model_type: llama, hiden_size: 8}"),
         "model.from_config.config.hiden_size = 8: unknown key; did you mean 'hidden_size'?"),
    Case("a vocabulary in numbers", new("{model_type: llama, vocab_size: 8}"),
         "model.from_config.config.vocab_size = 8: is the tokenizer's; leave it out"),
    Case("heads that do not divide a new model", new("{model_type: llama, hidden_size: 33}"),
         "The hidden size (33) is not a multiple of the number of attention heads (32)"),
    Case("a new model of no layers", new("{model_type: llama, num_hidden_layers: -1}"),
         "LlamaForCausalLM has no list of decoder layers; give another model"),
    Case("a path and a new model", lambda _: ["model.from_config={config: {model_type: llama}}"],
         "path: of a model that is loaded, and from_config makes a new one; leave out one of"),
    Case("no model", lambda _: ["model.path=null"], "path: missing; name a model, or give from_"),
    Case("a new model's tokenizer that is not there",
         new("{model_type: llama}", tokenizer="./nowhere"),
         "model.from_config.tokenizer = ./nowhere: is no tokenizer that transformers can load"),
    Case("an adapter of other names", adapter(renamed("model.layers", "text.layers", ADAPTER)),
         "(8 of its weights are not in its files, base_model.model.model.layers.0.self_attn."),
    Case("half an adapter", adapter(without("layers.2.", ADAPTER)), "(2 of its weights are not in"),
    Case("an adapter with a layer more", adapter(adapter_config(layers_to_transform=[0])),
         "(6 weights in its files have no place, base_model.model.model.layers.1."),
    Case("an adapter of another rank", adapter(adapter_config(r=3)), "size mismatch"),
    Case("an adapter cut off", adapter(cut(ADAPTER)), f"({ADAPTER} is damaged or cut off: "),
    Case("an adapter without weights", adapter(lambda folder: (folder / ADAPTER).unlink()),
         f"holds no {ADAPTER}; give the adapter's whole folder"),
    Case("an unknown adapter", adapter(adapter_config(peft_type="FANCY")),
         "its adapter cannot be loaded (KeyError: 'FANCY')"),
    Case("a prompt for an adapter", adapter(config=prompt_tuning),
         "its adapter (PROMPT_TUNING) changes no weights"),
    *([Case("an adapter of another generator", adapter(weights(halved, ADAPTER), config=vera),
            "1 of its weights are others than in its files, base_model.vera_A for one); set")]
      if MAKES_MATRICES_ANEW else []),
    Case("an adapter beside a model", model(file("adapter_config.json", "{}")),
         "has an adapter_config.json, and nothing says whether the adapter is meant"),
]  # fmt: skip
