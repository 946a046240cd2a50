"""Validated options → a recipe that says everything, defaults too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ebft.config.component import Component
from ebft.parts import Options, Part
from ebft.plugins import Registry


def resolved_yaml(options: Options, registry: Registry) -> str:
    """YAML that loads to equal options: what --dry-run prints and what a run saves."""
    return OmegaConf.to_yaml(OmegaConf.create(plain_options(options, registry)))


def plain_options(value: Any, registry: Registry) -> Any:
    """The options as mappings, lists, text and numbers."""
    match value:
        case Options():
            fields = {
                name: plain_options(getattr(value, name), registry)
                for name in type(value).model_fields
            }
            if isinstance(value, Part):
                return {"_component_": registry.name_of(type(value)), **fields}
            return fields
        case Component(path, arguments):
            return {"_component_": path, **arguments}
        case Mapping():
            return {key: plain_options(item, registry) for key, item in value.items()}
        case list() | tuple():
            return [plain_options(item, registry) for item in value]
        case Path():
            return str(value)
        case _:
            return value
