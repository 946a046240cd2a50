"""The registry: which parts exist, under which names, and which plug-in registered each.

Parts come from three sources, in this order: ebft's own packages (`BUILT_IN`), installed
distributions (entry-point group `ebft`), and a recipe's `plugins:` list (module names or paths of
.py files). A plug-in that fails to load is an error, and so is a name that two plug-ins register.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import pluggy

from ebft.errors import Mistake, PluginError, suggest, validation_error
from ebft.parts import hooks as hookspecs
from ebft.parts.kinds import BASES
from ebft.parts.modules import load_module, reason
from ebft.parts.named import LIBRARIES, find_named
from ebft.parts.part import Part

BUILT_IN = (
    "ebft.data",
    "ebft.plans",
    "ebft.samplers",
    "ebft.features",
    "ebft.transforms",
    "ebft.rewards",
    "ebft.baselines",
    "ebft.evaluation",
)
ENTRY_POINT_GROUP = "ebft"
KINDS = tuple(
    name.removeprefix("register_") for name in vars(hookspecs) if name.startswith("register_")
)


@dataclass(frozen=True, slots=True)
class Registered:
    """A part's class and the plug-in that registered it: "ebft-vllm 0.1 (…/__init__.py)"."""

    part: type[Part]
    origin: str


class Registry:
    """Every registered part by kind and name; `parse` turns recipe sections into parts.

    `importable` are the modules that a dotted path may lead into; None: any.
    """

    def __init__(
        self,
        parts: Mapping[str, Mapping[str, Registered]],
        importable: Collection[str] | None = None,
    ) -> None:
        self._parts, self.importable = parts, importable

    def kinds(self) -> Mapping[str, Mapping[str, Registered]]:
        return self._parts

    def trusting(self, modules: Collection[str]) -> Registry:
        """Returns the same parts, with dotted paths that may also lead into `modules`."""
        if self.importable is None:
            return self
        return Registry(self._parts, {*self.importable, *modules})

    def find(self, kind: str, component: str) -> type[Part]:
        """Returns the part class of a registered name, or of a dotted path `package.module.Class`.

        Raises `ValueError`, naming similar names or all names of the kind.
        """
        named = self._parts[kind]
        if component in named:
            return named[component].part
        if "." in component:
            found = find_named(component, self.importable)
            if not (isinstance(found, type) and issubclass(found, Part)):
                raise ValueError("is not a subclass of ebft.Part")
            others = [
                it
                for it, there in self._parts.items()
                if any(one.part is found for one in there.values())
            ]
            if others and kind not in others:
                raise ValueError(f"is one of the {others[0]}, and this is one of the {kind}")
            return check_base(kind, found)
        raise ValueError(f"none of the {kind} is named {component!r}{suggest(component, named)}")

    def name_of(self, part: type[Part]) -> str:
        """Returns the `_component_` of a class: its registered name, or its dotted path."""
        for named in self._parts.values():
            for name, registered in named.items():
                if registered.part is part:
                    return name
        return f"{part.__module__}.{part.__qualname__}"

    def origin(self, part: type[Part]) -> str:
        """Returns the plug-in that registered this class, or else the module that defines it."""
        for named in self._parts.values():
            for registered in named.values():
                if registered.part is part:
                    return registered.origin
        return part.__module__

    def parse(self, kind: str, section: Any, context: Any = None) -> Part:
        """Returns the part of a recipe section `{_component_: name, **options}`.

        Raises `ValueError` for a section that is not such a mapping, and pydantic's
        `ValidationError` for an unknown component or options that do not fit.
        """
        if not isinstance(section, Mapping) or not isinstance(section.get("_component_"), str):
            raise ValueError(
                "needs `_component_: NAME`, with the space, and that part's options beside it"
            )
        options = dict(section)
        component = options.pop("_component_")
        try:
            part = self.find(kind, component)
        except ValueError as error:
            mistake = Mistake(("_component_",), component, str(error))
            raise validation_error(kind, [mistake]) from error
        return part.model_validate(options, context=context or {"registry": self})


def check_base(kind: str, part: type[Part]) -> type[Part]:
    """Returns the part. Raises `ValueError` if it does not derive from its kind's base class, or is
    such a base class itself."""
    if part in (Part, *BASES.values()):
        raise ValueError(f"{part.__qualname__} is a base class: name one that derives from it")
    base = BASES.get(kind, Part)
    if not issubclass(part, base):
        raise ValueError(
            f"{part.__qualname__} is one of the {kind}, so it must derive from "
            f"ebft.{base.__name__}, not only from ebft.Part"
        )
    return part


def load_registry(plugins: Iterable[str] = ()) -> Registry:
    """Returns the registry of built-ins, installed plug-ins and the `plugins` of a recipe.

    Dotted paths lead into these modules and `LIBRARIES` alone. Raises `PluginError` for a plug-in
    that cannot be loaded or registered.
    """
    manager = pluggy.PluginManager("ebft")
    manager.add_hookspecs(hookspecs)
    origins: dict[str, str] = {}
    importable = {*LIBRARIES}

    def register(module: Any, name: str, origin: str, *, has_hooks: bool = True) -> None:
        importable.add(module.__name__)
        if manager.is_registered(module):
            return
        try:
            manager.register(module, name)
            # pluggy silently ignores a hook whose name is misspelt.
            check_hook_names(manager, module, origin)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"plug-in {origin}: {error}") from error
        if not manager.get_hookcallers(module) and (has_hooks or _forgets_to_mark(module)):
            raise PluginError(
                f"plug-in {origin} implements none of ebft's hooks; mark its register_… function "
                "with @ebft.hookimpl"
            )
        origins[name] = origin

    for name in BUILT_IN:
        register(importlib.import_module(name), name, f"ebft ({name})")
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        origin = f"{distribution} ({entry.value})"
        try:
            module = entry.load()
        except Exception as error:  # a third party's module may raise anything
            raise PluginError(f"plug-in {origin} failed to load: {reason(error)}") from error
        register(module, f"entry point {entry.name}", origin)
    for plugin in plugins:
        # A module may be there for the classes that the recipe names; those of a file have no name.
        is_file = plugin.endswith(".py")
        register(load_module(plugin), f"plugins: {plugin}", plugin, has_hooks=is_file)
    return Registry({kind: _collect(manager, kind, origins) for kind in KINDS}, importable)


def _forgets_to_mark(module: Any) -> bool:
    """Whether it has a function that is named after a hook."""
    return any(callable(vars(module).get(f"register_{kind}")) for kind in KINDS)


def check_hook_names(manager: pluggy.PluginManager, module: Any, origin: str) -> None:
    """Raises `PluginError` for a marked function whose name is not a hook: as pluggy's own
    `check_pending`, with a suggestion."""
    hooks = [f"register_{kind}" for kind in KINDS]
    for name in dir(module):
        mark = manager.parse_hookimpl_opts(module, name)
        if mark is None or mark["optionalhook"]:
            continue
        hook = mark["specname"] or name
        if hook not in hooks:
            raise PluginError(f"plug-in {origin}: there is no hook {hook}{suggest(hook, hooks)}")


@cache
def default_registry() -> Registry:
    """Built-ins and installed plug-ins, for parts that are built in Python without a recipe."""
    return Registry(load_registry().kinds())


def _collect(
    manager: pluggy.PluginManager, kind: str, origins: Mapping[str, str]
) -> dict[str, Registered]:
    collected: dict[str, Registered] = {}
    hook = getattr(manager.hook, f"register_{kind}")
    for implementation in hook.get_hookimpls():
        origin = origins[implementation.plugin_name]
        try:
            parts = dict(implementation.function())
        except Exception as error:
            raise PluginError(f"plug-in {origin}: register_{kind} failed: {error!r}") from error
        for name, part in parts.items():
            if not (isinstance(part, type) and issubclass(part, Part)):
                raise PluginError(f"plug-in {origin}: {kind} {name!r} is not a subclass of Part")
            if name in collected:
                raise PluginError(
                    f"two plug-ins register {kind} {name!r}: {collected[name].origin} and {origin};"
                    " rename one or uninstall it"
                )
            try:
                collected[name] = Registered(check_base(kind, part), origin)
            except ValueError as error:
                raise PluginError(f"plug-in {origin}: {error}") from error
    return dict(sorted(collected.items()))
