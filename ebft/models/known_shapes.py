"""Dimensions of the models that the shipped recipes name, for estimates without a download.

From the `config.json` that each is published with. A recipe may name any other model: its
configuration is then read from where its weights are.
"""

from __future__ import annotations

from ebft.models.embedded import EMBEDDED
from ebft.models.shape import ModelShape

SHAPES = {
    EMBEDDED: ModelShape(
        hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, intermediate=1536,
        vocab=49152, tied=True,
    ),
    "Qwen/Qwen2.5-1.5B": ModelShape(
        hidden=1536, layers=28, heads=12, kv_heads=2, head_dim=128, intermediate=8960,
        vocab=151936, tied=True,
    ),
    "Qwen/Qwen2.5-3B": ModelShape(
        hidden=2048, layers=36, heads=16, kv_heads=2, head_dim=128, intermediate=11008,
        vocab=151936, tied=True,
    ),
    "Qwen/Qwen2.5-7B": ModelShape(
        hidden=3584, layers=28, heads=28, kv_heads=4, head_dim=128, intermediate=18944,
        vocab=152064, tied=False,
    ),
    "meta-llama/Llama-3.2-1B": ModelShape(
        hidden=2048, layers=16, heads=32, kv_heads=8, head_dim=64, intermediate=8192,
        vocab=128256, tied=True,
    ),
}  # fmt: skip
