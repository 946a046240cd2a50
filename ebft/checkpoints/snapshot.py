"""The contents of a checkpoint: a folder that Hugging Face loads, and the state of the run.

    config.json, model.safetensors, tokenizer…   the policy: `from_pretrained` loads the folder
    adapter_config.json, adapter_model.safeten…  with LoRA: in place of them, or in adapter/
    README.md                                    the model card
    run/about.json                               the recipe, the step, digests (`config.about`)
    run/state.json, run/state.safetensors        optimizer, schedule, parts, figures so far
    run/shards/                                  with several processes: the optimizer's tensors
    manifest.sha256                              a checksum of every file

`models.export.load_weights` and `read_state` read what `Snapshot.write` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter
from torch import Tensor

from ebft.checkpoints.nested import read_nested, write_nested
from ebft.checkpoints.shards import SHARED, check_shards, write_shards
from ebft.config.about import RUN, About, write_about
from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.files import Count, Number, Text, record
from ebft.models.export import save_policy
from ebft.models.lora import has_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ebft.models.shard import SavedWeights

CARD = "README.md"
STATE, SHARDS = "state", "shards"


class State(BaseModel):
    """The entries of the state of a run; each object validates its own entry when it loads it."""

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

    With several processes, `weights` are what they have to save, and `shards` are the tensors that
    are `Sharded` in the state. `card` is the text of README.md.
    """

    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    about: About
    state: Mapping[str, Any]
    weights: SavedWeights | None = None
    merge_adapter: bool = False
    shards: Mapping[str, Tensor] = field(default_factory=dict)
    card: str | None = None
    processes: Processes = ONE_PROCESS

    def write_part(self, folder: Path) -> None:
        """Writes this process's rows of the weights and its shards into an existing folder."""
        if self.weights is not None:
            write_weights(
                self.policy, self.tokenizer, self.weights, folder, self.processes,
                merge_adapter=self.merge_adapter,
            )  # fmt: skip
        if self.shards:
            write_shards(self.shards, shards_of(folder))

    def write(self, folder: Path) -> None:
        """Writes everything else into the folder."""
        if self.weights is None:
            save_policy(self.policy, self.tokenizer, folder, merge_adapter=self.merge_adapter)
        if self.shards:
            check_shards(shards_of(folder), self.shards)
        (folder / RUN).mkdir(exist_ok=True)
        write_nested(dict(self.state), folder / RUN / STATE)
        write_about(self.about, folder)
        if self.card is not None:
            (folder / CARD).write_text(self.card, encoding="utf-8")

    @property
    def size(self) -> int:
        """The number of bytes of the tensors."""
        weights = saved_weights(self.policy, merge_adapter=self.merge_adapter)
        tensors = [*weights, *_tensors(self.state), *self.shards.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def saved_weights(policy: PreTrainedModel, *, merge_adapter: bool) -> Iterator[Tensor]:
    """The weights that a checkpoint holds: with an adapter only those of the adapter, unless it is
    merged."""
    alone = has_adapter(policy) and not merge_adapter
    return (weight for weight in policy.parameters() if weight.requires_grad or not alone)


def shards_of(folder: Path) -> Path:
    """The folder of the shards in a checkpoint."""
    return folder / RUN / SHARDS


def read_state(folder: Path) -> dict[str, Any]:
    """Reads the nested state. Raises `ValueError` for damaged files."""
    file = folder / RUN / STATE
    state: dict[str, Any] = read_nested(file)
    try:
        record(state, TypeAdapter(State))
    except ValueError as error:
        raise ValueError(f"{file}.json holds no state of a run: {error}") from error
    return state


def write_weights(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    weights: SavedWeights,
    folder: Path,
    processes: Processes,
    *,
    merge_adapter: bool,
) -> None:
    """Writes a sharded policy as `save_policy` does. Every process must call it, with its `weights`
    (`models.shard`). Raises `OSError` in every process if one of them cannot write."""
    from ebft.models.write_rows import create_files, write_rows

    def create() -> None:
        if processes.is_main:
            whole = weights.whole
            save_policy(policy, tokenizer, folder, weights=whole, merge_adapter=merge_adapter)
            create_files(weights.rows, folder)

    _in_all(processes, create)
    _in_all(processes, lambda: write_rows(weights.rows, folder, is_main=processes.is_main))


def _in_all(processes: Processes, write: Callable[[], None]) -> None:
    """Calls `write`; raises `OSError` in every process if one of them cannot write."""
    failure: Exception | None = None
    try:
        write()
    except FileNotFoundError as error:
        failure = OSError(f"{error.filename} is not there: {SHARED}")
    except Exception as error:  # safetensors reports a full disk with an exception of its own
        failure = error
    said = processes.first(None if failure is None else str(failure))
    if said is not None:
        raise OSError(said) from failure


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
