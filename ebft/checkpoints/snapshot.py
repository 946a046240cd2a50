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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

import ebft
from ebft.checkpoints.nested import read_nested, write_nested
from ebft.models.export import WholeWeights, save_policy
from ebft.models.lora import has_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORMAT = 3
RUN, ABOUT, STATE, SHARDS = "run", "about.json", "state", "shards"


@dataclass(frozen=True, slots=True)
class About:
    """Which run a checkpoint is of: small enough to read before anything is loaded.

    `recipe` is the resolved recipe; `digests` are of what it was run on (`ebft.digests`);
    `micro_batch` is how many documents it had at a time, which the recipe may leave open.
    """

    step: int
    recipe: Mapping[str, Any]
    digests: Mapping[str, str]
    micro_batch: int | None = None
    format: int = FORMAT
    ebft: str = ebft.__version__


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
            from ebft.checkpoints.shards import write_shards

            write_shards(self.shards, shards_of(folder))

    def write(self, folder: Path) -> None:
        """Writes all the rest."""
        save_policy(
            self.policy, self.tokenizer, folder,
            weights=self.weights, merge_adapter=self.merge_adapter,
        )  # fmt: skip
        if self.shards:
            from ebft.checkpoints.shards import check_shards

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
        content = json.loads((folder / RUN / ABOUT).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(
                f"it is of format {content['format']}, written by ebft {content['ebft']}; this is "
                f"ebft {ebft.__version__}, which reads format {FORMAT}"
            )
        about = About(**content)
        if not (
            isinstance(about.step, int)
            and isinstance(about.recipe, dict)
            and isinstance(about.digests, dict)
            and (about.micro_batch is None or isinstance(about.micro_batch, int))
        ):
            raise ValueError("its step, recipe, digests or micro_batch are not as they should be")
    except (FileNotFoundError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{RUN}/{ABOUT} is not that of a checkpoint: {error!r}") from error
    return about


def read_state(folder: Path) -> dict[str, Any]:
    """The nested state. Raises `ValueError` for files that hold none."""
    state = read_nested(folder / RUN / STATE)
    if not isinstance(state, dict):
        raise ValueError(f"{folder / RUN / STATE}.json holds a {type(state).__name__}")
    return state


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
