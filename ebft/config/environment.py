"""Recipes do not read the environment: what a recipe resolves to is saved beside its results."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def refuse_environment() -> None:
    """Makes `${oc.env:NAME}` an error: a token in it would end up in every checkpoint."""
    OmegaConf.register_resolver("oc.env", _refuse, replace=True)


def _refuse(name: str, *_default: Any) -> Any:
    raise ValueError(
        f"recipes do not read environment variables, for what they resolve to is saved; give the "
        f"value on the command line: key=${name}"
    )
