"""An engine in its own process on the trainer's machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebft.distributed.helper_process import HelperProcess
from ebft_vllm.messages import Job, Samples, Start
from ebft_vllm.shared import SharedWeights, outline_of

WHERE = "the vLLM engine's process"


class OwnProcessEngine:
    """Starts `ebft_vllm.child` and sends it requests; ends it when it does not answer in time.

    The server's process ends by itself when this process has ended for any reason.
    """

    def __init__(
        self, start: Start, *, devices: str | None, start_timeout: float, timeout: float
    ) -> None:
        self._timeout = timeout
        self._dtype = getattr(torch, start.dtype)
        self._shared: SharedWeights | None = None
        self._process = HelperProcess(
            [sys.executable, "-m", "ebft_vllm.child"],
            what=WHERE,
            environment={} if devices is None else {"CUDA_VISIBLE_DEVICES": devices},
        )
        self._process.ask("start", start, timeout=start_timeout, option="sampler.start_timeout")

    @property
    def pid(self) -> int:
        """The process id of the engine."""
        return self._process.pid

    def load(self, weights: Mapping[str, Tensor]) -> None:
        if self._shared is None:
            self._shared = SharedWeights(outline_of(weights, self._dtype))
        self._shared.write(weights)
        self._ask("load", self._shared.path, self._shared.layout)

    def load_adapter(self, folder: Path) -> None:
        self._ask("load_adapter", folder)

    def sample(self, job: Job) -> Samples:
        samples: Samples = self._ask("sample", job)
        return samples

    def close(self) -> None:
        self._process.close()
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _ask(self, name: str, *arguments: Any) -> Any:
        return self._process.ask(name, *arguments, timeout=self._timeout, option="sampler.timeout")
