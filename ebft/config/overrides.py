"""Overrides on the command line: `key=value` sets, `~key` deletes.

Keys are dotted paths into the recipe, with numbers for list entries. Values are YAML without
comments, and a text without quotes is taken literally. If a section is a component, `sampler=vllm`
is short for `sampler._component_=vllm`. Choosing another component drops the options of the old
one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ebft.errors import UserError, suggest
from ebft.printable import cut_short

log = logging.getLogger("ebft")

Tree = dict[str, Any] | list[Any]
COMMAND_LINE = "command line"
SHOWN = 40
"""Characters of a dropped value in a message."""
NOT_YAML = (
    yaml.YAMLError, OmegaConfBaseException,
    # PyYAML raises these if a value does not fit its tag: `!!float x`, `!!int`, …
    ValueError, IndexError, TypeError, KeyError, AttributeError, RecursionError,
)  # fmt: skip
"""Errors of parsing text that is not YAML, or has no value."""


@dataclass(frozen=True, slots=True)
class Override:
    """One override: sets `value` at `keys`, or deletes it. Messages name its `origin`."""

    text: str
    keys: tuple[str, ...]
    value: Any = None
    delete: bool = False
    origin: str = COMMAND_LINE


def parse_override(text: str) -> Override:
    """Parses an override. Raises `UserError` if `text` is neither `key=value` nor `~key`."""
    key, equals, value = text.partition("=")
    delete = key.startswith("~")
    keys = tuple(key.removeprefix("~").split("."))
    if not all(keys) or bool(equals) == delete:
        raise UserError(
            f"command line: {text!r}: an override is key=value, or ~key to delete a key"
        )
    return Override(text, keys, None if delete else _parse_value(text, value), delete)


def override(key: str, value: Any, *, origin: str) -> Override:
    """Returns the override of a file that sets the dotted `key`, or deletes it if it is `~key`.

    Raises `UserError` for a key with an empty part.
    """
    keys = tuple(key.removeprefix("~").split("."))
    if not all(keys):
        raise UserError(f"{origin}: {key!r}: a key is dotted, like sampler.n, or ~key to delete it")
    if key.startswith("~"):
        return Override(key, keys, delete=True, origin=origin)
    return Override(f"{key}={value}", keys, deepcopy(value), origin=origin)


def apply_overrides(recipe: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """Returns the recipe with the overrides applied; interpolations are not resolved.

    Components are chosen first, so that their options may come in any order. Raises `UserError`
    for a path that does not exist.

    >>> recipe = {"plan": {"_component_": "strided", "stride": 8}, "training": {"steps": 30}}
    >>> apply_overrides(recipe, map(parse_override, ["training.steps=5", "~plan.stride"]))
    {'plan': {'_component_': 'strided'}, 'training': {'steps': 5}}
    """
    tree = deepcopy(dict(recipe))
    for override in sorted(overrides, key=lambda it: not _chooses_component(tree, it)):
        if override.delete:
            _delete(tree, override)
        else:
            _set(tree, override)
    return tree


def _parse_value(text: str, value: str) -> Any:
    if not value.strip():  # a shell's variable that is not set, more likely than YAML's null
        raise UserError(
            f"command line: {text!r}: has no value; write null for none, or quotes for no text"
        )
    try:
        tokens = list(yaml.scan(value))[1:-1]  # without the tokens of the stream's start and end
        # OmegaConf, unlike YAML 1.1, reads 1e-5 as a number.
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))
    except NOT_YAML as error:
        raise UserError(f"command line: {text!r}: {value!r} is not a YAML value") from error
    assert isinstance(parsed, dict)
    comment = value[tokens[-1].end_mark.index :].strip() if tokens else value.strip()
    match tokens:
        case [yaml.ScalarToken(plain=True) as word]:
            # YAML would drop text after ` #`, and replace line ends by spaces.
            if word.value != value.strip() or isinstance(parsed["value"], str):
                return value
        case _ if comment:
            raise UserError(
                f"command line: {text!r}: {comment!r} is a comment in YAML; put it in quotes if it "
                "belongs to the value, or leave it out"
            )
    return parsed["value"]


def _chooses_component(tree: dict[str, Any], override: Override) -> bool:
    if override.delete or not isinstance(override.value, str):
        return False
    if override.keys[-1] == "_component_":
        return True
    trial = deepcopy(tree)
    _part_twins(trial, override.keys)
    try:
        return _is_component(_get(_parent(trial, override), override.keys[-1]))
    except (UserError, LookupError):  # reported when the override is applied
        return False


def _set(tree: dict[str, Any], override: Override) -> None:
    _part_twins(tree, override.keys)
    parent, key, value = _parent(tree, override), override.keys[-1], override.value
    try:
        before = _get(parent, key)
    except LookupError:
        if isinstance(parent, list):
            raise _no_entry(override, parent, key) from None
        before = None
    if isinstance(value, str) and "${" not in value:
        if key == "_component_" and isinstance(parent, dict) and before is not None:
            return _choose(parent, value, override)
        if _is_component(before):
            return _choose(before, value, override)
    return _put(parent, key, value)


def _choose(section: dict[str, Any], component: str, override: Override) -> None:
    replaced = section["_component_"]
    if component == replaced:
        return
    path = ".".join(key for key in override.keys if key != "_component_")
    dropped = ", ".join(
        f"{path}.{key}={_shown(value)}" for key, value in section.items() if key != "_component_"
    )
    section.clear()
    section["_component_"] = component
    options = (
        f"; options of {replaced} dropped: {dropped}; add those that {component} has too"
        if dropped
        else ""
    )
    # Options of the file are not visible on the command line, so this is a warning there.
    level = logging.WARNING if override.origin == COMMAND_LINE else logging.DEBUG
    log.log(level, "%s: %s instead of %s%s", path, component, replaced, options)


def _shown(value: Any) -> str:
    """A value as an override has it, cut if it is long."""
    return cut_short(value if isinstance(value, str) else json.dumps(value, default=str), SHOWN)


def _delete(tree: dict[str, Any], override: Override) -> None:
    _part_twins(tree, override.keys[:-1])
    parent, key = _parent(tree, override), override.keys[-1]
    try:
        _get(parent, key)
    except LookupError:
        raise _no_entry(override, parent, key) from None
    if isinstance(parent, list):
        del parent[int(key)]
    else:
        del parent[key]


def _part_twins(tree: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Copies sections on the path that refer to another section (`${plan}`)."""
    node: Any = tree
    for depth, key in enumerate(keys, 1):
        try:
            child = _get(node, key)
            if isinstance(child, str) and "${" in child:
                child = OmegaConf.select(OmegaConf.create(tree), ".".join(keys[:depth]))
        except (LookupError, OmegaConfBaseException):
            return  # missing or broken, which is reported on use
        if OmegaConf.is_config(child):
            child = OmegaConf.to_container(child, resolve=True)
            _put(node, key, child)
        if not isinstance(child, dict | list):
            return
        node = child


def _parent(tree: dict[str, Any], override: Override) -> Tree:
    """Returns the mapping or list of the last key; missing sections on the path are created."""
    node: Tree = tree
    for depth, key in enumerate(override.keys[:-1], 1):
        try:
            child = _get(node, key)
        except LookupError:
            if isinstance(node, list) or override.delete:
                raise _no_entry(override, node, key) from None
            child = None
        if child is None:
            child = {}
            _put(node, key, child)
        if not isinstance(child, dict | list):
            path = ".".join(override.keys[:depth])
            raise UserError(
                f"{override.origin}: {override.text}: {path} = {child} has no keys in it"
            )
        node = child
    return node


def _get(node: Tree, key: str) -> Any:
    if isinstance(node, dict):
        return node[key]
    return node[int(key) if key.isdecimal() else len(node)]


def _put(node: Tree, key: str, value: Any) -> None:
    if isinstance(node, dict):
        node[key] = value
    else:
        node[int(key)] = value


def _is_component(section: Any) -> bool:
    return isinstance(section, dict) and "_component_" in section


def _no_entry(override: Override, node: Tree, key: str) -> UserError:
    where = f"{override.origin}: {override.text}"
    if isinstance(node, list):
        return UserError(f"{where}: the list has {len(node)} entries, from 0; none is {key!r}")
    return UserError(f"{where}: there is no {key!r}{suggest(key, node)}")
