"""The options of the evaluator and of the reward: the model, its environment, and the source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from ebft.errors import UserError
from ebft.parts.part import Part
from ebft.verifiers.attempts import Attempt
from ebft_comet.environment import VARIABLE, lacks, python_of
from ebft_comet.scorer import Scorer, Segment, Settings, scorer_of

CHECKPOINT = Path("checkpoints", "model.ckpt")
"""Where a COMET model's folder has its weights."""
SHOWN = 200


def _has_a_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if groups < 1:
        raise ValueError("has no group (…), which would be the sentence to translate")
    return pattern


class CometOptions(Part):
    """What a part needs to score translations by COMET."""

    model: str = Field(
        "Unbabel/wmt22-comet-da",
        description="a COMET model: a hub id, or a folder with hparams.yaml and "
        f"{CHECKPOINT}, or such a .ckpt file",
    )
    python: Path | None = Field(
        None,
        description=f"the Python of the environment that has unbabel-comet; null: ${VARIABLE}",
    )
    source: Annotated[str, AfterValidator(_has_a_group)] = Field(
        r"\n[^\n:]+: (.*)\n[^\n:]+:\s*\Z",
        description="a regular expression whose first group is the sentence to translate in a "
        "prompt; by default that of ALMA's prompts, `German: … ⏎ English:`",
    )
    dtype: Literal["float16", "float32"] = Field(
        "float32",
        description="dtype of the COMET model; float16, as `comet-score` has it: a score then "
        "depends, by rounding, on the others of its batch",
    )
    batch_size: PositiveInt = Field(16, description="segments in a forward pass of the COMET model")
    gpus: int = Field(0, ge=0, le=1, description="1: on a GPU; 0: on the CPU")
    start_timeout: float = Field(
        1800, gt=0, description="seconds that COMET may take to start, with the model's download"
    )
    timeout: float = Field(1800, gt=0, description="seconds that one scoring may take")

    def missing(self) -> str | None:
        file = self._file()
        if file is not None and not file.is_file():
            return f"model = {self.model}: there is no file {file}"
        return lacks(self.python) or super().missing()

    def model_name(self) -> str:
        """The model's short name, such as wmt22-comet-da."""
        file = self._file()
        return self.model.rpartition("/")[2] if file is None else file.absolute().parents[1].name

    def scorer(self) -> Scorer:
        """Starts the COMET model, or returns the one of the same options that runs.

        Raises `UserError` for what is missing, and `EngineError` if the model cannot be loaded.
        """
        if problem := self.missing():
            raise UserError(f"comet: {problem}")
        python, file = python_of(self.python), self._file()
        assert python is not None, "nothing is missing"
        return scorer_of(
            Settings(
                python=python,
                model=self.model if file is None else str(file.absolute()),
                dtype=self.dtype,
                batch_size=self.batch_size,
                gpus=self.gpus,
                start_timeout=self.start_timeout,
                timeout=self.timeout,
            )
        )

    def segments(self, attempts: Sequence[Attempt]) -> list[Segment]:
        """Returns attempts, whose rollouts are translations, as segments.

        Raises `UserError` naming the document whose prompt has no sentence to translate.
        """
        return [
            Segment(self._source_of(one), one.rollout.strip(), one.reference.strip())
            for one in attempts
        ]

    def _source_of(self, attempt: Attempt) -> str:
        found = re.search(self.source, attempt.context)
        if found is None or found[1] is None:
            raise UserError(
                f"comet: source = {self.source}: matches nothing in the prompt of document "
                f"{attempt.document}, which ends with {attempt.context[-SHOWN:]!r}; set `source` "
                "to a regular expression whose first group is the sentence to translate"
            )
        return found[1].strip()

    def _file(self) -> Path | None:
        """Returns the file of a local model; None for a hub id."""
        path = Path(self.model).expanduser()
        if path.suffix == CHECKPOINT.suffix:
            return path
        is_local = path.is_dir() or path.is_absolute() or self.model.startswith((".", "~"))
        return path / CHECKPOINT if is_local else None
