"""Validated options → a recipe with all defaults."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import OmegaConf

from ebft.config.component import Component
from ebft.errors import UserError
from ebft.options import Options
from ebft.parts.part import Part
from ebft.parts.registry import Registry


def resolved_yaml(options: Options, registry: Registry) -> str:
    """Returns YAML that loads to equal options, for --dry-run and for a run's folder."""
    return as_yaml(plain_options(options, registry))


def as_yaml(plain: dict[str, Any]) -> str:
    """Returns the YAML of `plain_options`."""
    return OmegaConf.to_yaml(OmegaConf.create(plain))


def fingerprint(
    options: Options,
    registry: Registry,
    *,
    without: Collection[str],
    and_also: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Returns a hash of the options, except the top-level keys `without`, and of the keys and
    values `and_also`: 8 hexadecimal digits.

    Defaults are not hashed, so options that are added to ebft later do not change the fingerprint.
    Of a plug-in file, the name and the content are hashed, not the folder.
    """
    said = plain_options(options, registry, defaults=False)
    kept = {key: value for key, value in said.items() if key not in without} | dict(and_also)
    if "plugins" in kept:
        kept["plugins"] = [_identity(plugin) for plugin in kept["plugins"]]
    return blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=4).hexdigest()


def plain_options(value: Any, registry: Registry, *, defaults: bool = True) -> Any:
    """Returns the options as mappings, lists, text and numbers.

    Without `defaults`, values that equal their default are left out."""
    match value:
        case Options():
            fields = {
                name: plain_options(getattr(value, name), registry, defaults=defaults)
                for name, field in type(value).model_fields.items()
                if defaults or field.is_required() or getattr(value, name) != field.get_default()
            }
            if isinstance(value, Part):
                return {"_component_": registry.name_of(type(value)), **fields}
            return fields
        case Component(path, arguments):
            return {"_component_": path, **arguments}
        case Mapping():
            return {
                key: plain_options(item, registry, defaults=defaults) for key, item in value.items()
            }
        case list() | tuple():
            return [plain_options(item, registry, defaults=defaults) for item in value]
        case Path():
            return str(value)
        case _:
            return value


def check_text(value: Any, *keys: str) -> None:
    """Raises `UserError` for plain options that a file cannot store, such as a path that is not
    UTF-8, and for a null character, which no path can have.

    `keys` are the keys of the value, from the top.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_text(item, *keys, str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            check_text(item, *keys, str(i))
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{'.'.join(keys)} = {value}: is not UTF-8, as a recipe is; rename it")
    elif isinstance(value, str) and "\0" in value:
        raise UserError(f"{'.'.join(keys)} = {value!r}: has a null character; remove it")


def _identity(plugin: str) -> str:
    """Returns a plug-in's identity: a module's name, or a file's name and a hash of its content."""
    if not plugin.endswith(".py"):
        return plugin
    file = Path(plugin)
    return f"{file.name} {blake2b(file.read_bytes(), digest_size=8).hexdigest()}"
