"""A tiny model with its tokenizer, documents and rollouts, for tests of parts, offline.

Policies are random Llamas of four small layers, in float64 so that equalities hold to rounding.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ebft.models import attention
from ebft.parts.part import Resources
from ebft.rollout.records import Contexts, Document, Rollouts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LETTERS = "abcdefghijklmnopqrs ="
VOCAB = 3 + len(LETTERS)
CONFIG = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.3,
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=1,
    pad_token_id=0,
    attn_implementation=attention.TREE,
)


def tiny_policy(seed: int = 0, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """Returns a random policy that computes in `dtype` throughout."""
    policy = plain_policy(seed)
    # transformers' RMSNorm always computes in float32; torch's keeps float64.
    for parent in list(policy.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "LlamaRMSNorm":
                norm = torch.nn.RMSNorm(CONFIG.hidden_size, eps=CONFIG.rms_norm_eps)
                torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
                parent.register_module(name, norm)
    return policy.to(dtype)


def plain_policy(seed: int = 0) -> PreTrainedModel:
    """Returns the same decoder as transformers makes and saves it: float32, with its own norms."""
    torch.manual_seed(seed)
    policy = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIG)).eval()
    return cast("PreTrainedModel", policy)


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Returns a tokenizer in which each character of `LETTERS` is a token and all others are
    unknown. End-of-sequence is token 1."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2}
    for letter in LETTERS:
        vocabulary[letter] = len(vocabulary)
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    return cast("PreTrainedTokenizerBase", tokenizer)


def tiny_documents(
    lengths: Sequence[int], seed: int = 0, prompt_length: int = 0, vocabulary: int = VOCAB
) -> list[Document]:
    """Returns documents of random tokens, one of each length."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Document(
            f"doc{i}", torch.randint(vocabulary, (length,), generator=generator), prompt_length
        )
        for i, length in enumerate(lengths)
    ]


def tiny_resources(policy: PreTrainedModel | None = None, *, seed: int = 0) -> Resources:
    """Returns the resources to build a part with, for a tiny policy or the given one."""
    policy = tiny_policy() if policy is None else policy

    def load_base() -> PreTrainedModel:
        return cast("PreTrainedModel", copy.deepcopy(policy).requires_grad_(False))

    def load_other(_path: str) -> PreTrainedModel:
        return tiny_policy(seed=seed + 1).requires_grad_(False)

    return Resources(
        policy=policy,
        tokenizer=tiny_tokenizer(),
        load_base=load_base,
        load_other=load_other,
        device=policy.device,
        precision=torch.float32,
        seed=seed,
    )


def tiny_rollouts(contexts: Contexts, n: int, seed: int = 0, vocabulary: int = VOCAB) -> Rollouts:
    """Returns n rollouts of random tokens for each context, some shorter if they may end early."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(contexts), n, contexts.rollout_length)
    tokens = torch.randint(2, vocabulary, shape, generator=generator)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    if contexts.stop_at_eos:
        length = torch.randint(1, shape[-1] + 1, shape[:-1], generator=generator)
        mask = torch.arange(shape[-1]) < length[..., None]
    log_probs = -torch.rand(shape, generator=generator, dtype=torch.float64)
    device = contexts.tokens.device
    return Rollouts(contexts, tokens.to(device), log_probs.to(device), mask.to(device), 1.0)


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """Writes a tiny model and its tokenizer to a folder that a recipe's `model.path` can name."""
    plain_policy(seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_tiny_texts(folder: Path, files: int = 12, seed: int = 0) -> Path:
    """Writes .py files in letters that the tiny tokenizer knows, for `data: python_files`."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        text = "".join(rng.choice("abcdefgh =") for _ in range(70))
        (folder / f"file{number}.py").write_text(text, encoding="utf-8")
    return folder
