"""What is refused of a model's files: by its `config.json`, and by what other libraries raise.

There is no fixed set of what transformers, peft and safetensors raise for files that they cannot
load. So `refusing` is put around a call of theirs alone: an error of ebft inside it would lose its
traceback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PretrainedConfig
from transformers.utils import find_adapter_config_file

from ebft.errors import UserError, first_line, is_out_of_memory

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What architectures call the number of their layers."""
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
QUANTISED = ("quantization_config", "compression_config")
LFS = b"version https://git-lfs.github.com/spec/"
"""How the file begins that Git LFS leaves in place of one that it has not fetched."""
FILES = ("*.safetensors", "*.json", "*.model")
"""The files of a model that are looked at for the cause."""
LONGEST = 300
"""Characters of what another library says."""
PLAIN = (OSError, ValueError, RuntimeError, ImportError)
"""Errors whose message says enough without their name."""


def check_configuration(
    path: str, revision: str, *, says: str, remedy: str, local_files_only: bool = False
) -> None:
    """Raises `UserError` for a model that is quantised, has an adapter or other weights beside it,
    or has more layers than its folder has weights. `path` is a folder or a hub id."""
    hub = {"revision": revision, "local_files_only": local_files_only}
    with refusing(f"{says}: cannot be loaded", remedy, folder=path):
        adapter = find_adapter_config_file(path, **hub)
        said, _ = ({}, None) if adapter else PretrainedConfig.get_config_dict(path, **hub)
        weights = _count_weights(Path(path))
        problem = _which_weights(Path(path))
    if adapter is not None:
        raise UserError(
            f"{says}: has an adapter_config.json, and nothing says whether the adapter is meant; "
            "move it into a folder of its own, and give that with its model as model.base, or "
            "delete it"
        )
    if problem is not None:
        raise UserError(f"{says}: {problem}")
    for section in _sections(said):
        for key in QUANTISED:
            if how := section.get(key):
                method = how.get("quant_method", key) if isinstance(how, dict) else key
                raise UserError(
                    f"{says}: its weights are quantised ({method}), and cannot be trained; give "
                    "the model that they were quantised from (model.lora.quantize_base=true keeps "
                    "it in 4 bits)"
                )
        for key in LAYERS:
            layers = section.get(key)
            if weights is not None and isinstance(layers, int) and layers > weights:
                raise UserError(
                    f"{says}: its config.json has {key} = {layers}, and its files hold {weights} "
                    "weights; give the configuration that the weights were saved with"
                )


def _sections(said: Any) -> Iterator[dict[str, Any]]:
    """The configuration itself, and those of the models inside it."""
    if isinstance(said, dict):
        yield said
        for key, value in said.items():
            if key.endswith("_config") and key not in QUANTISED:
                yield from _sections(value)


def _which_weights(folder: Path) -> str | None:
    """Why it is not clear which weights of a folder are meant; None if it is."""
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file() and index.is_file():
        files = set(json.loads(index.read_bytes())["weight_map"].values())
        if WHOLE not in files:
            return (
                f"has {WHOLE} and also {INDEX}, which names other files, and nothing says which "
                "are meant; delete the others"
            )
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        return (
            "has its weights in .bin files alone, which are not read, for to read them can run "
            "code; load the model with transformers and save it anew, as safetensors"
        )
    return None


def _count_weights(folder: Path) -> int | None:
    """The weights in a folder's files, by their headers; None if it has no such file."""
    files = sorted(folder.glob("*.safetensors"))
    return sum(map(_weights_of, files)) if files else None


def _weights_of(file: Path) -> int:
    with safe_open(file, "pt") as opened:
        return len(opened.keys())


@contextmanager
def refusing(says: str, remedy: str, *, folder: str | Path | None) -> Iterator[None]:
    """Turns any error but a lack of memory into a `UserError`: `says (the likely cause); remedy`.

    `folder` holds the files; a hub id has none to look at, and None is for what has no files.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise UserError(f"{says} ({_cause(error, folder)}); {remedy}") from error


def _cause(error: Exception, folder: str | Path | None) -> str:
    if folder is not None and (damaged := _damaged(Path(folder))) is not None:
        return damaged
    said = first_line(error)
    return (said if isinstance(error, PLAIN) else f"{type(error).__name__}: {said}")[:LONGEST]


def _damaged(folder: Path) -> str | None:
    """The first file of a folder that is wrong by itself, and how; None if there is none."""
    for pattern in FILES:
        for file in sorted(folder.glob(pattern)):
            if (damage := _damage(file)) is not None:
                return f"{file.name} {damage}"
    return None


def _damage(file: Path) -> str | None:
    """What is wrong with a file by itself, for any model; None if nothing is."""
    try:
        with file.open("rb") as opened:
            start = opened.read(len(LFS))
        if not start:
            return "is empty"
        if start == LFS:
            return "is a pointer of Git LFS and not the file: run `git lfs pull` in its folder"
        if file.suffix == ".json":
            json.loads(file.read_bytes())
        if file.suffix == ".safetensors":
            with safe_open(file, "pt"):
                pass
    except Exception as error:  # as there is no fixed set of those of damaged files
        return f"is damaged or cut off: {first_line(error)}"[:LONGEST]
    return None
