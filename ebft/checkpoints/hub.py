"""The options of `checkpoint.hub`: which checkpoints are uploaded to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from pydantic import Field, PositiveInt, field_validator

from ebft.checkpoints.manifest import MANIFEST
from ebft.config.about import RUN
from ebft.options import Options

OF_THE_RUN = (f"{RUN}/*", MANIFEST)
"""Patterns of a checkpoint's files with which a run is resumed, and which loading does not need."""


class HubOptions(Options):
    """Uploads checkpoints to a repository of the Hugging Face Hub, while training continues."""

    repo: str = Field(description="the repository, as OWNER/NAME; made if there is none")
    private: bool = Field(
        True, description="whether a repository that is made is private; others stay as they are"
    )
    every: PositiveInt | None = Field(
        None,
        description="optimizer steps between uploads, a multiple of checkpoint.every; null: each "
        "checkpoint. The last checkpoint is always uploaded",
    )
    state: bool = Field(
        False,
        description="also upload the state of the run, with which another machine resumes it, and "
        "the recipe with the paths in it; false: the model, the tokenizer and the model card",
    )
    timeout: float = Field(
        3600.0,
        gt=0,
        description="seconds after which an upload is stopped and counts as failed",
    )

    @field_validator("repo")
    @classmethod
    def _is_a_repository(cls, repo: str) -> str:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise ValueError(f"is no name of a repository ({error}); give OWNER/NAME") from error
        if "/" not in repo:
            raise ValueError(f"has no owner; give OWNER/NAME, such as me/{repo}")
        return repo

    @property
    def excluded(self) -> tuple[str, ...]:
        """Patterns of the files of a checkpoint that are not uploaded."""
        return () if self.state else OF_THE_RUN

    def missing(self) -> Iterator[str]:
        """One line for each thing that uploads need and this machine lacks."""
        from huggingface_hub import constants, get_token, is_offline_mode

        says = f"checkpoint.hub.repo = {self.repo}"
        if is_offline_mode():
            yield (
                f"{says}: nothing can be uploaded, because HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE "
                "is set; unset it, or set checkpoint.hub=null"
            )
        elif (token := get_token()) is None:
            yield (
                f"{says}: there is no token of the Hugging Face Hub; run `hf auth login` or set "
                "HF_TOKEN, with a token that may write"
            )
        elif not token.isascii():
            yield (
                f"{says}: the token of the Hugging Face Hub has letters that no token has; copy it "
                "again, and run `hf auth login` or set HF_TOKEN"
            )
        if not constants.ENDPOINT.startswith(("http://", "https://")):
            yield (
                f"{says}: HF_ENDPOINT = {constants.ENDPOINT}: is no address of a hub; begin it "
                "with https:// or http://, or unset it"
            )

    def command(self, checkpoint: Path) -> str:
        """Returns the shell command that uploads a checkpoint as the run does."""
        words = ["hf", "upload", self.repo, str(checkpoint), "."]
        words += ["--private"] if self.private else []
        words += [word for pattern in self.excluded for word in ("--exclude", pattern)]
        return " ".join(map(quote, words))
