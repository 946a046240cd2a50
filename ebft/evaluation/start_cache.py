"""Keeps the evaluation before the first step for other runs that start from the same policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, TypeAdapter, model_validator

from ebft.config.dump import fingerprint
from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.errors import UserError
from ebft.evaluation.lines import Length, check_values
from ebft.files import (
    Count,
    Flag,
    Number,
    Text,
    check_writable,
    parse_json,
    read_text,
    record,
    write_whole,
)
from ebft.parts.measurements import Measurement
from ebft.parts.version import __version__

if TYPE_CHECKING:
    from ebft.evaluation.options import RunEvaluationOptions
    from ebft.models.options import ModelOptions
    from ebft.parts.registry import Registry

NOT_MEASURED = ("every", "remember")
"""Keys of `evaluation` that do not change figures."""
FORMAT = "2"
"""The version of the file; the first had no clusters."""


class Fields(BaseModel):
    """The fields of a measurement in JSON."""

    name: Text
    unit: Text
    value: list[Number]
    weight: list[Number]
    at: Length | None
    share: Flag
    of: Text
    clusters: list[Count]

    @model_validator(mode="after")
    def _are_of_the_same_documents(self) -> Fields:
        check_values(self.value, self.weight, self.clusters)
        return self

    def measurement(self) -> Measurement:
        tensors = {
            "value": torch.tensor(self.value, dtype=torch.float64),
            "weight": torch.tensor(self.weight, dtype=torch.float64),
            "clusters": torch.tensor(self.clusters),
        }
        return Measurement(**{**self.model_dump(), **tensors})


MEASUREMENTS = TypeAdapter(dict[Text, Fields])


@dataclass(frozen=True, slots=True)
class Remembered:
    """One evaluation in its own file, which the main process reads, and writes atomically."""

    file: Path
    processes: Processes = ONE_PROCESS

    def recall(self) -> dict[str, Measurement] | None:
        """Returns every measurement by its name, bit for bit; None if no run has made them yet.

        Every process must call it. Raises `UserError` if the file has been damaged.
        """
        try:
            there = self.processes.is_main and self.file.exists()
            # The others might not see the file, or see it late.
            text = self.processes.broadcast(read_text(self.file) if there else None)
            if text is None:
                return None
            found = record(parse_json(text), MEASUREMENTS)
        except (OSError, ValueError) as error:
            raise UserError(
                f"evaluation.remember: {self.file} is damaged: {error}; delete it, and the base "
                "model is measured again"
            ) from error
        return {name: fields.measurement() for name, fields in found.items()}

    def keep(self, measured: Mapping[str, Measurement]) -> None:
        """Writes the measurements, atomically, if this is the main process."""
        if not self.processes.is_main:
            return
        plain = {name: asdict(one) for name, one in measured.items()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.file, json.dumps(plain, default=torch.Tensor.tolist) + "\n")


def remembered(
    evaluation: RunEvaluationOptions,
    registry: Registry,
    digests: Mapping[str, str],
    *,
    model: ModelOptions,
    seed: int,
    processes: Processes = ONE_PROCESS,
) -> Remembered | None:
    """Returns where the evaluation before the first step is kept; None if the recipe keeps none.

    The file's name is a hash of evaluators, seed, model, and the digests of the base model's
    weights and of the documents, so runs that differ in any of these use different files. The code
    of plug-ins is not hashed: after changing an evaluator, delete the folder.

    Raises `UserError` if the file is not there and cannot be written.
    """
    folder = evaluation.remember
    if folder is None:
        return None
    said = (
        FORMAT,
        __version__,
        str(seed),
        fingerprint(model, registry, without=()),
        fingerprint(evaluation, registry, without=NOT_MEASURED),
        digests["base"],
        digests["held_out"],
    )
    mark = blake2b("\n".join(said).encode(), digest_size=8).hexdigest()
    file = folder / f"{mark}.json"
    try:
        if processes.is_main and not file.exists():
            check_writable(folder)
    except OSError as error:
        raise UserError(
            f"evaluation.remember = {folder}: cannot be written: {error.strerror}; give another "
            "folder, or null"
        ) from error
    return Remembered(file, processes)
