"""The `model:` section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ebft.parts import Options


class ModelOptions(Options):
    """The policy, and the base model whose frozen copy computes features."""

    path: str = Field(
        description="smollm2-135m-instruct (embedded), a local HF folder, or a hub id"
    )
    base: str | None = Field(
        None, description="the model whose frozen copy computes features, for a `path` that is a "
        "checkpoint: the one it was trained from; null: `path` itself",
    )  # fmt: skip
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of forward and backward; the policy's weights stay float32"
    )
    attention: Literal["tree", "dense"] = Field(
        "tree",
        description="tree: costs what a tree's tokens see of each other; dense: a mask over all "
        "of them, slower, to compare with",
    )
    device: str = Field("auto", description="auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with a hub id; only for those you trust"
    )
