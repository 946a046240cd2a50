"""Recipes do not read the environment, because resolved recipes are saved with their results."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def refuse_environment() -> None:
    """Makes `${oc.env:NAME}` an error, because a token would be saved in every checkpoint."""
    OmegaConf.register_resolver("oc.env", _refuse, replace=True)


def _refuse(name: str, *_default: Any) -> Any:
    raise ValueError(
        f"recipes do not read environment variables ({name}), because the resolved recipe is saved "
        "with every result; write the value itself, or leave a secret out: libraries read theirs "
        "from the environment (HF_TOKEN, WANDB_API_KEY)"
    )
