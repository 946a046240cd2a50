"""What trainer and engine say to each other: plain data, so that it crosses processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Start:
    """How to start an engine: `folder` holds the model's config.json, no weights."""

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
    """Requests that are sampled alike. A sample ends after `stop` (None: nothing ends it)."""

    requests: Sequence[Request]
    n: int
    length: int
    temperature: float
    stop: int | None


class Sample(NamedTuple):
    """One continuation: its tokens, and their log-probs under what they were drawn from."""

    tokens: list[int]
    log_probs: list[float]


Samples = list[list[Sample]]
"""For each request its n samples."""


class Engine(Protocol):
    """An engine that has been started, in whatever process.

    Every call raises `EngineError` if the engine is dead, does not answer in time or fails.
    """

    def load(self, weights: dict[str, Tensor]) -> None:
        """Takes over weights under the names of a state dict, and forgets cached prefixes."""
        ...

    def sample(self, job: Job) -> Samples:
        """Samples as the job says."""
        ...

    def close(self) -> None:
        """Ends the engine, at once if it must be."""
        ...
