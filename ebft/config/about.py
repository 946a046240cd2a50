"""`run/about.json` in a checkpoint: which run, at which step, wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter

from ebft.files import Count, Text, parse_json, read_text, record
from ebft.parts.version import __version__

FORMAT = 3
RUN = "run"
"""The folder of the run's state in a checkpoint."""
ABOUT = f"{RUN}/about.json"
"""The file that makes a folder a checkpoint of a run."""


class Version(BaseModel):
    """The version that wrote a checkpoint. It is read first, because the format depends on it."""

    format: Count
    ebft: Text


VERSION = TypeAdapter(Version)


@dataclass(frozen=True, slots=True)
class About:
    """Which run a checkpoint belongs to; small, so that it can be read before anything is loaded.

    `recipe` is the resolved recipe, `digests` are of the base model's weights and the documents,
    and `micro_batch` is the number of documents at a time, which a recipe may leave open.
    """

    step: Count
    recipe: Mapping[Text, Any]
    digests: Mapping[Text, Text]
    micro_batch: Annotated[Count, Field(ge=1)] | None = None
    format: Count = FORMAT
    ebft: Text = __version__


def write_about(about: About, checkpoint: Path) -> None:
    """Writes the file into a checkpoint's folder."""
    (checkpoint / ABOUT).write_text(json.dumps(asdict(about), indent=1), encoding="utf-8")


def read_about(checkpoint: Path) -> About:
    """Reads the file of a checkpoint's folder.

    Raises `ValueError` if the folder is not a checkpoint that this version can resume, and
    `OSError` if it cannot be read.
    """
    try:
        content = parse_json(read_text(checkpoint / ABOUT))
        version = record(content, VERSION)
        if version.format == FORMAT:
            return record(content, TypeAdapter(About))
    except FileNotFoundError as error:
        raise ValueError(f"it has no {ABOUT}") from error
    except ValueError as error:
        raise ValueError(f"{ABOUT} is not that of a checkpoint: {error}") from error
    raise ValueError(
        f"it has format {version.format}, written by ebft {version.ebft}; this is ebft "
        f"{__version__}, which reads format {FORMAT}: it is not damaged, so resume with the "
        "version that wrote it"
    )
