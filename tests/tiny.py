"""A tiny random decoder and documents for it, in float64 so that equalities hold to rounding."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from ebft.rollout.records import Document

VOCAB = 24


def tiny_policy(seed: int = 0, dtype: torch.dtype = torch.float64):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def tiny_documents(lengths: list[int], seed: int = 0, prompt_length: int = 0) -> list[Document]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Document(f"doc{i}", torch.randint(VOCAB, (length,), generator=generator), prompt_length)
        for i, length in enumerate(lengths)
    ]
