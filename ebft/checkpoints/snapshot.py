"""What is in a checkpoint: an HF folder, and beside it the state of the run.

    config.json, model.safetensors, tokenizer…   the policy: `from_pretrained` loads the folder
    adapter_config.json, adapter_model.safeten…  with LoRA: in place of them, or in adapter/
    run/about.json                               which step of which recipe, on which data
    run/state.json, run/state.safetensors        optimizer, schedule, parts, figures so far
    run/shards/                                  of several processes: the optimizer's tensors
    manifest.sha256                              a checksum of every file

`Snapshot.write` and `models.export.load_weights` with `read_state` are each other's inverse. Beside
them only `models.load` looks inside, at how the base model of an adapter was kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter
from torch import Tensor

import ebft
from ebft.checkpoints.nested import read_nested, write_nested
from ebft.checkpoints.shards import check_shards, write_shards
from ebft.files import Count, Number, Text, parse_json, read_text, record
from ebft.models.export import WholeWeights, save_policy
from ebft.models.lora import has_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORMAT = 3
RUN, ABOUT, STATE, SHARDS = "run", "about.json", "state", "shards"


class Version(BaseModel):
    """Which version has written a checkpoint: read first, for the rest depends on it."""

    format: Count
    ebft: Text


VERSION = TypeAdapter(Version)


@dataclass(frozen=True, slots=True)
class About:
    """Which run a checkpoint is of: small enough to read before anything is loaded.

    `recipe` is the resolved recipe; `digests` are of the weights and documents that it was run on;
    `micro_batch` is how many documents it had at a time, which the recipe may leave open.
    """

    step: Count
    recipe: Mapping[Text, Any]
    digests: Mapping[Text, Text]
    micro_batch: Annotated[Count, Field(ge=1)] | None = None
    format: Count = FORMAT
    ebft: Text = ebft.__version__


class State(BaseModel):
    """What the state of a run consists of; each part of it knows what it holds itself."""

    optimizer: dict[Any, Any]
    lr_scheduler: dict[Any, Any]
    parts: dict[Text, Any]
    random: dict[Text, Any]
    micro_batch_tokens: Count
    metrics: list[dict[Text, Number]]
    history: dict[Text, dict[Text, dict[Text, Any]]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run after `about.step` optimizer steps. `state` is nested (`checkpoints.nested`).

    `weights` and `merge_adapter` are those of `save_policy`; `shards` are the tensors that are
    `Sharded` in the state.
    """

    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    about: About
    state: Mapping[str, Any]
    weights: WholeWeights | None = None
    merge_adapter: bool = False
    shards: Mapping[str, Tensor] = field(default_factory=dict)

    def write_part(self, folder: Path) -> None:
        """Writes this process's part of what is divided over all, into an existing folder."""
        if self.shards:
            write_shards(self.shards, shards_of(folder))

    def write(self, folder: Path) -> None:
        """Writes all the rest."""
        save_policy(
            self.policy, self.tokenizer, folder,
            weights=self.weights, merge_adapter=self.merge_adapter,
        )  # fmt: skip
        if self.shards:
            check_shards(shards_of(folder), self.shards)
        run = folder / RUN
        run.mkdir(exist_ok=True)
        write_nested(dict(self.state), run / STATE)
        (run / ABOUT).write_text(json.dumps(asdict(self.about), indent=1), encoding="utf-8")

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        weights = saved_weights(self.policy, merge_adapter=self.merge_adapter)
        tensors = [*weights, *_tensors(self.state), *self.shards.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def saved_weights(policy: PreTrainedModel, *, merge_adapter: bool) -> Iterator[Tensor]:
    """The policy's weights that a checkpoint has: of one with an adapter, that alone, unless it is
    merged."""
    alone = has_adapter(policy) and not merge_adapter
    return (weight for weight in policy.parameters() if weight.requires_grad or not alone)


def shards_of(folder: Path) -> Path:
    """Where a checkpoint has what several processes have written parts of."""
    return folder / RUN / SHARDS


def read_about(folder: Path) -> About:
    """Raises `ValueError` if the folder is not a checkpoint that this version can resume, and
    `OSError` if it cannot be read."""
    try:
        content = parse_json(read_text(folder / RUN / ABOUT))
        version = record(content, VERSION)
        if version.format == FORMAT:
            return record(content, TypeAdapter(About))
    except FileNotFoundError as error:
        raise ValueError(f"it has no {RUN}/{ABOUT}") from error
    except ValueError as error:
        raise ValueError(f"{RUN}/{ABOUT} is not that of a checkpoint: {error}") from error
    raise ValueError(
        f"it is of format {version.format}, written by ebft {version.ebft}; this is ebft "
        f"{ebft.__version__}, which reads format {FORMAT}: it is not damaged, so resume with the "
        "version that wrote it"
    )


def read_state(folder: Path) -> dict[str, Any]:
    """The nested state. Raises `ValueError` for files that hold none."""
    file = folder / RUN / STATE
    state: dict[str, Any] = read_nested(file)
    try:
        record(state, TypeAdapter(State))
    except ValueError as error:
        raise ValueError(f"{file}.json holds no state of a run: {error}") from error
    return state


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
