"""Finds and imports a recipe's plug-ins."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from zlib import crc32

from ebft.errors import PluginError


def find_plugin(plugin: str, beside: Iterable[Path]) -> str:
    """Returns the path of a recipe's plug-in, which is looked for in the working directory, then in
    `beside`, the folders of the recipe and of its bases. A module name is returned unchanged,
    unless it cannot be imported and `beside` has a file of that name. Raises `PluginError` for a
    missing file."""
    if not plugin.endswith(".py"):
        files = (folder / f"{plugin}.py" for folder in beside)
        found = next((str(file) for file in files if file.is_file()), plugin)
        return found if "." not in plugin and not is_importable(plugin) else plugin
    path = os.path.expanduser(plugin)
    candidates = [Path(path), *(folder / path for folder in beside)]
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    looked = " and ".join(str(candidate) for candidate in dict.fromkeys(candidates))
    raise PluginError(f"plugins: {plugin}: no such file; looked for {looked}")


def is_importable(module: str) -> bool:
    """Whether Python finds a module of this name, also in the working directory."""
    try:
        with _working_directory():
            return importlib.util.find_spec(module) is not None
    except ValueError:  # a module that runs as a script has no specification
        return True


def load_module(plugin: str) -> ModuleType:
    """Returns the module of a name or of a .py file. Raises `PluginError` if the import fails."""
    try:
        if plugin.endswith(".py"):
            return _load_file(Path(plugin).resolve(strict=True))
        with _working_directory():
            return importlib.import_module(plugin)
    except (Exception, SystemExit) as error:  # a script that ends itself is no plug-in
        if isinstance(error, ModuleNotFoundError) and error.name == plugin.partition(".")[0]:
            raise PluginError(
                f"plug-in {plugin}: there is no such module; install the package that has it, or "
                "name a file that ends in .py"
            ) from error
        raise PluginError(f"plug-in {plugin} failed to load: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Says what an import raised, and in which line of which file."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    *_, last = traceback.extract_tb(error.__traceback__)
    where = "" if last.filename.startswith("<") else f" ({last.filename}, line {last.lineno})"
    return f"{type(error).__name__}: {error}{where}"


@contextmanager
def _working_directory() -> Iterator[None]:
    """Within it, modules in the working directory are found, after all others.

    Afterwards they are not: a file there, such as triton.py, would be run in the place of a package
    that a library tries to import and that is not installed.
    """
    before = list(sys.path)
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before


def _load_file(path: Path) -> ModuleType:
    name = f"ebft_plugin_{path.stem}_{crc32(str(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None, f"{path} ends in .py"
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs: pickling and dataclasses look their own module up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
