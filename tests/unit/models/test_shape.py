"""How much a model reads: of its config, and not more than it computes alike for every text."""

import pytest
from transformers import GPT2Config, LlamaConfig, MambaConfig, Phi3Config

from ebft.models.shape import context_length

LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
    "rope_theta": 1e4, "original_max_position_embeddings": 40,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (LlamaConfig(max_position_embeddings=96), 96),
        (GPT2Config(n_positions=32), 32),
        (MambaConfig(), None),
        (
            Phi3Config(
                hidden_size=32, num_attention_heads=4, max_position_embeddings=160,
                original_max_position_embeddings=40, rope_parameters=LONGROPE, pad_token_id=0,
            ),
            40,
        ),
    ],
    ids=["llama", "gpt2", "mamba", "longrope"],
)  # fmt: skip
def test_context_length(config, tokens):
    assert context_length(config) == tokens
