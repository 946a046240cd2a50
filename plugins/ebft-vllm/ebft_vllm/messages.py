"""The messages between trainer and engine: plain data, which can be sent between processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Start:
    """How to start an engine: `folder` has the model's config.json, without weights."""

    folder: str
    dtype: str
    max_length: int | None
    kv_cache_bytes: int
    block_size: int
    options: dict[str, Any]


class Request(NamedTuple):
    """n continuations of one context. Sample j is drawn with `seed` + j."""

    tokens: list[int]
    seed: int


@dataclass(frozen=True, slots=True)
class Job:
    """Requests with the same sampling parameters. A sample has `length` tokens, or ends early with
    the token `stop` unless that is None."""

    requests: Sequence[Request]
    n: int
    length: int
    temperature: float
    stop: int | None


class Sample(NamedTuple):
    """One continuation: its tokens, and their log-probs under the sampling distribution."""

    tokens: list[int]
    log_probs: list[float]


Samples = list[list[Sample]]
"""The n samples of each request."""


class Engine(Protocol):
    """An engine that has been started, in this process or another one.

    Every call raises `EngineError` if the engine is dead, does not answer in time or fails.
    """

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Loads weights by their names in a state dict, and resets the prefix cache.

        Weights may be divided over the processes of a run. All of them must call this then.
        """
        ...

    def load_adapter(self, folder: Path) -> None:
        """Loads an adapter that peft has saved, in place of the one before, and resets the prefix
        cache. It is used until `load` is called."""
        ...

    def sample(self, job: Job) -> Samples:
        """Returns n samples for each request of the job."""
        ...

    def close(self) -> None:
        """Ends the engine, or the connection to it; a running call may be interrupted."""
        ...
