"""What `model.path` names: a folder with a model, an adapter or a checkpoint, or a hub id."""

from __future__ import annotations

import logging
from pathlib import Path

from ebft.config.about import ABOUT
from ebft.errors import UserError
from ebft.models import embedded
from ebft.models.options import ModelOptions

log = logging.getLogger("ebft")

PATH = "model.path"
WEIGHTS = "model*.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
"""The file that makes a folder one of an adapter."""
ACCEPTED = (
    f"give {embedded.EMBEDDED} (the embedded model), a folder that save_pretrained wrote, "
    "or a hub id (of a private model after `hf auth login`, or with HF_TOKEN)"
)


def model_folder(options: ModelOptions, *, key: str = PATH) -> str:
    """The name to pass to `from_pretrained`: a local folder, or a hub id.

    For the embedded model it is the folder of the converted model. Raises `UserError`, naming
    `key`, for a path that is not a model's folder.
    """
    path = options.path
    assert path is not None, "the model is not a new one"
    if path == embedded.EMBEDDED:
        return str(embedded.embedded_model())
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and adapter_folder(options) is None:
            inside = sorted((folder / "checkpoints").glob("step-*")) or sorted(
                folder.glob("step-*")
            )
            advice = f"give one of its checkpoints: {inside[-1]}" if inside else ACCEPTED
            raise UserError(f"{key} = {path}: the folder has no config.json; {advice}")
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"{key} = {path}: no such folder; {ACCEPTED}")
    log.info("%s = %s: there is no such folder, so it is taken as a hub id", key, path)
    return path


def adapter_folder(options: ModelOptions) -> Path | None:
    """The folder of `model.path`, if it holds an adapter and no model; else None.

    An adapter's folder may contain the `config.json` of its model, so only weights count.
    """
    if options.path is None:
        return None
    folder = Path(options.path).expanduser()
    is_adapter = (folder / ADAPTER_CONFIG).is_file() and not any(folder.glob(WEIGHTS))
    return folder if is_adapter else None


def is_checkpoint(options: ModelOptions) -> bool:
    """Whether `model.path` is a checkpoint that a run has written."""
    return options.path is not None and (Path(options.path).expanduser() / ABOUT).is_file()
