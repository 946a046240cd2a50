"""Segments → scores, by a process in the environment that has unbabel-comet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple
from weakref import WeakValueDictionary

from ebft.distributed.helper_process import HelperProcess
from ebft.errors import EngineError
from ebft_comet.environment import PACKAGE, TESTED, version_in

log = logging.getLogger("ebft.comet")

SERVER = Path(__file__).with_name("server.py")
WHAT = "COMET's process"


class Segment(NamedTuple):
    """What COMET scores: a sentence, its translation, and a reference translation."""

    source: str
    translation: str
    reference: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What a scorer is started with. `model` is the file of a checkpoint, or a hub id."""

    python: Path
    model: str
    dtype: str
    batch_size: int
    gpus: int
    start_timeout: float
    timeout: float


class Scorer:
    """A COMET model in a process of its own, which ends with this object or this process."""

    def __init__(self, settings: Settings) -> None:
        version = version_in(settings.python)
        if version != TESTED:
            log.warning("%s %s is not tested with ebft; %s is", PACKAGE, version, TESTED)
        self._timeout, since = settings.timeout, perf_counter()
        self._process = HelperProcess([str(settings.python), "-I", str(SERVER)], what=WHAT)
        self._process.ask(
            "start", settings.model, settings.dtype, settings.batch_size, settings.gpus,
            timeout=settings.start_timeout, option="start_timeout",
        )  # fmt: skip
        seconds = perf_counter() - since
        log.info(
            "COMET: %s, by %s %s, started in %.1f s", settings.model, PACKAGE, version, seconds
        )

    def __call__(self, segments: Sequence[Segment]) -> list[float]:
        """Returns the score of each segment. Raises `EngineError` if the process fails."""
        if not segments:
            return []
        plain = [tuple(segment) for segment in segments]  # its process does not know `Segment`
        found = self._process.ask("score", plain, timeout=self._timeout, option="timeout")
        if len(found) != len(segments):
            raise EngineError(f"{WHAT} returned {len(found)} scores for {len(segments)} segments")
        return [float(score) for score in found]

    def close(self) -> None:
        """Ends the process."""
        self._process.close()


_RUNNING: WeakValueDictionary[Settings, Scorer] = WeakValueDictionary()


def scorer_of(settings: Settings) -> Scorer:
    """Returns the scorer with these settings. Parts that ask for the same share one model."""
    found = _RUNNING.get(settings)
    if found is None:
        found = _RUNNING[settings] = Scorer(settings)
    return found
