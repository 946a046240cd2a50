"""What a model's configuration says of its size: its dimensions, and how much text it reads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ebft.errors import UserError
from ebft.lazy import torch
from ebft.models.embedded import EMBEDDED

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ROWS = 512
"""The number of tokens whose logits exist at a time."""
EXPERTS = ("num_experts", "num_local_experts")
"""What architectures call the number of experts of a layer."""


def layer_index(depth: float, layers: int) -> int:
    """Returns the index of the hidden state at a fraction of the depth: max(1, ⌊L·f⌋). Index 0 is
    the embeddings."""
    return max(1, int(layers * depth))


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Dimensions of a decoder with grouped-query attention and the same kind of MLP in all layers.

    `mlp_matrices` is 3 for a gated MLP (Llama, Qwen, …) and 2 for a plain one (GPT-NeoX, …). In a
    mixture, each layer has a router and so many `experts`, of which a token goes through
    `experts_per_token`, and `intermediate` is the width of one. Both are 1 in other models.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    mlp_matrices: int = 3
    experts: int = 1
    experts_per_token: int = 1

    @classmethod
    def of(cls, config: PretrainedConfig) -> ModelShape:
        """Reads the dimensions from a transformers configuration. Raises `ValueError` for missing
        keys, and for layers of another kind (experts beside an MLP, …)."""
        text = config.get_text_config().to_dict()
        experts = next((text[name] for name in EXPERTS if isinstance(text.get(name), int)), 1)
        if experts > 1 and isinstance(text.get("moe_intermediate_size"), int):
            text["intermediate_size"] = text["moe_intermediate_size"]
        names = (
            "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "vocab_size",
        )  # fmt: skip
        if missing := [name for name in names if not isinstance(text.get(name), int)]:
            raise ValueError(f"its configuration does not have {', '.join(missing)}")
        hidden, layers, heads, intermediate, vocab = (text[name] for name in names)
        without_mlp = cls(
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or hidden // heads,
            intermediate=intermediate,
            vocab=vocab,
            tied=bool(text.get("tie_word_embeddings", True)),
            mlp_matrices=0,
            experts=experts,
            experts_per_token=text.get("num_experts_per_tok", 1) if experts > 1 else 1,
        )
        weights = _layer_weights(config)
        if experts > 1 and len(set(weights)) > 1:
            raise ValueError("not all of its layers are mixtures of experts")
        mlp = weights[-1] - without_mlp.layer_weights
        matrices, rest = divmod(mlp, hidden * intermediate * experts)
        if matrices not in (2, 3) or rest:
            inside = "one MLP" if experts == 1 else "experts with their router"
            raise ValueError(f"its layers contain more than attention and {inside}")
        return replace(without_mlp, mlp_matrices=matrices)

    @property
    def is_mixture(self) -> bool:
        """Whether layers have experts."""
        return self.experts > 1

    @property
    def layer_weights(self) -> int:
        """The number of weights in the matrices of one layer."""
        return self._attention_weights + self.experts * self._mlp_weights

    @property
    def active_weights(self) -> int:
        """The number of those that a token is multiplied with: fewer in a mixture of experts."""
        return self._attention_weights + self.experts_per_token * self._mlp_weights

    @property
    def _attention_weights(self) -> int:
        """Of attention, and of the router."""
        router = self.hidden * self.experts if self.is_mixture else 0
        return 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads) + router

    @property
    def _mlp_weights(self) -> int:
        return self.mlp_matrices * self.hidden * self.intermediate

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """The numbers of inputs and outputs of a layer's matrices that may have an adapter, by
        their usual names: not those of experts."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
        }
        if self.is_mixture:
            return attention
        return {
            **attention,
            **({"gate_proj": (self.hidden, self.intermediate)} if self.mlp_matrices == 3 else {}),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    def adapter_weights(self, rank: int, names: Collection[str] | None = None) -> int:
        """Returns the number of weights of LoRA's A and B for the named matrices of all layers
        (None: every matrix). Raises `ValueError` for a name that is not in `projections`."""
        there = self.projections
        if unknown := sorted(set(names or ()) - there.keys()):
            raise ValueError(f"the size of {', '.join(unknown)} is only known after loading")
        return self.layers * sum(rank * sum(there[name]) for name in names or there)

    @property
    def head_weights(self) -> int:
        return self.hidden * self.vocab

    @property
    def parameters(self) -> int:
        """The number of weights, without norms and biases, which are few."""
        return self.layers * self.layer_weights + self.head_weights * (1 if self.tied else 2)


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
"""Dimensions of the models that the shipped recipes name, from the `config.json` of each: so that
an estimate needs no download. Of any other model, the configuration is read."""


def _layer_weights(config: PretrainedConfig) -> list[int]:
    """Returns the number of weights in each layer's matrices, counted on the meta device."""
    from transformers import AutoModelForCausalLM

    from ebft.models.decoder import decoder_blocks  # imports transformers

    with torch.device("meta"):
        _, layers = decoder_blocks(AutoModelForCausalLM.from_config(config))
    return [
        sum(weight.numel() for weight in layer.parameters() if weight.dim() > 1) for layer in layers
    ]


def context_length(config: PretrainedConfig) -> int | None:
    """The longest text, in tokens, that the model was trained to read; None if there is no limit.

    Beyond it rotary embeddings would compute something silently, and learned ones fail. `longrope`
    uses other frequencies for a whole batch as soon as one of its texts is longer than the original
    limit, so a text would depend on those beside it: here the original limit holds.
    """
    text = config.get_text_config()
    # An attribute: in the configuration's dict, some architectures have it under another name.
    most: int | None = getattr(text, "max_position_embeddings", None)
    rope = text.to_dict().get("rope_parameters") or {}
    if rope.get("rope_type") == "longrope":
        most = min(most or 0, rope["original_max_position_embeddings"])
    return most


def check_context_length(length: int, config: PretrainedConfig, *, key: str) -> None:
    """Raises `UserError` naming `key` for a length that the model cannot read."""
    most = context_length(config)
    if most is not None and length > most:
        raise UserError(
            f"{key} = {length}: the model reads {most} tokens at most; set {key}={most} or less"
        )
