"""Recipes do not read the environment: what a recipe resolves to is saved beside its results."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def refuse_environment() -> None:
    """Makes `${oc.env:NAME}` an error: a token in it would end up in every checkpoint."""
    OmegaConf.register_resolver("oc.env", _refuse, replace=True)


def _refuse(name: str, *_default: Any) -> Any:
    raise ValueError(
        f"recipes do not read environment variables ({name}), for what they resolve to is saved "
        "beside every result; write the value itself, or leave a secret out: libraries read theirs "
        "from the environment by themselves (HF_TOKEN, WANDB_API_KEY)"
    )
