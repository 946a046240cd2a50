"""The `model:` section of a recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from ebft.errors import UserError, first_line
from ebft.lazy import torch
from ebft.models.new_options import FromConfigOptions
from ebft.options import Options, expand_home
from ebft.parts.packages import missing


class LoraOptions(Options):
    """LoRA (Hu et al., arXiv 2106.09685): W + alpha/rank · B·A, of which only A and B are trained.

    The base model's weights stay as they are, so the frozen feature network is the same weights
    without the adapter. There is no dropout: the log-probs trained on would be those of another
    policy than the one that sampled.
    """

    rank: PositiveInt = Field(16, description="rows of A, columns of B")
    alpha: float = Field(32.0, gt=0, description="the adapter's product is scaled by alpha/rank")
    target_modules: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear",
        min_length=1,
        description="which linear layers get one: all of the decoder's, or their names, such as "
        "[q_proj, v_proj]",
    )
    quantize_base: bool = Field(
        False,
        description="QLoRA: keep the base model's linear layers in 4 bits (NF4), the frozen "
        "feature network's included, which are the same; every process has all of them",
    )

    def missing(self) -> list[str]:
        """One line for each package that is not installed and that this needs."""
        keys = {"peft": "model.lora"}
        if self.quantize_base:
            keys["torchao"] = "model.lora.quantize_base = true"
        return [f"{key}: {what}" for name, key in keys.items() if (what := missing(name))]


DEVICE = re.compile(r"auto|(cpu|cuda|mps|xpu|npu|hpu|xla)(:\d+)?")


class ModelOptions(Options):
    """The policy, and the base model whose frozen copy computes features."""

    path: str | None = Field(
        None, description="smollm2-135m-instruct (embedded), a local HF folder, or a hub id; null: "
        "the model is made by `from_config`",
    )  # fmt: skip
    from_config: FromConfigOptions | None = Field(
        None, description="make a model with random weights, to train it from the beginning; null: "
        "load that of `path`",
    )  # fmt: skip
    base: str | None = Field(
        None, description="the model whose frozen copy computes features, for a `path` that is a "
        "checkpoint: the one it was trained from; null: `path` itself",
    )  # fmt: skip
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of forward and backward; the policy's weights stay float32"
    )
    attention: Literal["auto", "tree", "flex", "dense", "rows"] = Field(
        "auto",
        description="tree: costs what a tree's tokens see of each other; flex: the same by "
        "FlexAttention's kernels, for GPUs (on a CPU it cannot train); dense: a mask over all "
        "tokens, slower, to compare with; rows: each rollout with its prefix as a text of its own, "
        "through the model's own attention or recurrence, exact for any architecture but several "
        "times the cost; auto: tree if the model is exact there, else rows",
    )
    device: str = Field(
        "auto",
        description="auto (a GPU if there is one), cpu, cuda, cuda:1, …",
    )
    eos_token: str | None = Field(
        None,
        description="the token of the vocabulary that ends rollouts and completions, saved with "
        "checkpoints: for a chat template that ends turns with another token than the tokenizer's "
        "end-of-sequence; null: the tokenizer's",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with a hub id; only for those you trust"
    )
    lora: LoraOptions | None = Field(
        None, description="train adapters of the policy; null: train all of its weights"
    )

    @field_validator("path", "base")
    @classmethod
    def _spell_out_home(cls, path: str | None) -> str | None:
        """A `~` in front spelt out, as in an option that is a path; this may also be a hub id."""
        if path is None or not path.startswith("~"):
            return path
        return str(expand_home(Path(path)))

    @model_validator(mode="after")
    def _is_one_model(self) -> Self:
        if self.from_config is None:
            if self.path is None:
                raise ValueError("path: missing; name a model, or give from_config to make one")
            return self
        loaded = {
            "path": self.path, "base": self.base, "revision": self.revision, "lora": self.lora,
            "trust_remote_code": self.trust_remote_code or None,
        }  # fmt: skip
        if given := [key for key, value in loaded.items() if value is not None]:
            raise ValueError(
                f"{', '.join(given)}: of a model that is loaded, and from_config makes a new one; "
                "leave out one of the two (from_config=null to continue with its checkpoint)"
            )
        return self

    @property
    def name(self) -> str:
        """What messages call the model: its path, or that it is new and its architecture."""
        if self.from_config is not None:
            return f"a new {self.from_config.config['model_type']}"
        assert self.path is not None, "validated"
        return self.path

    @property
    def tries_layouts(self) -> bool:
        """Whether the layout is chosen by trying the model when it is loaded."""
        return self.attention == "auto"

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not DEVICE.fullmatch(device):
            raise ValueError("no such device; give auto, cpu, cuda or cuda:1, …")
        return device


def resolve_device(name: str) -> torch.device:
    """The device of a recipe's `model.device`. Raises `UserError` if this machine has none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"model.device = {name}: {first_line(error)}; give auto, cpu or cuda"
        ) from error
    return device
