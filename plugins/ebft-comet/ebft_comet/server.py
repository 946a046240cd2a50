"""COMET's process: `python -I server.py FD PID`, by the Python that has unbabel-comet.

It serves one connection until that closes, or until process PID has ended. A request is
`(name, arguments)`, an answer `("done", result)` or `("failed", reason, traceback)`. It imports
nothing of ebft, whose requirements this environment does not have.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from typing import Any

EVERY = 1.0
"""Seconds between checks that the process that started this one is running."""


class Server:
    """A COMET model, and the requests that it answers."""

    def __init__(self) -> None:
        self._model: Any = None
        self._batch_size = self._gpus = 0

    def start(self, model: str, dtype: str, batch_size: int, gpus: int) -> None:
        """Loads the model: a checkpoint's file, or a hub id."""
        import torch
        from comet import download_model, load_from_checkpoint

        torch.set_float32_matmul_precision("high")  # as `comet-score` does
        try:
            file = model if model.endswith(".ckpt") else download_model(model)
            self._model = load_from_checkpoint(file)
        except Exception as error:
            raise RuntimeError(f"model = {model}: cannot be loaded: {error}") from error
        self._model.eval().to(getattr(torch, dtype))
        self._batch_size, self._gpus = batch_size, gpus

    def score(self, segments: list[tuple[str, str, str]]) -> list[float]:
        """Returns the score of each (source, translation, reference)."""
        samples = [dict(zip(("src", "mt", "ref"), segment)) for segment in segments]  # noqa: B905
        found = self._model.predict(
            samples,
            batch_size=self._batch_size,
            gpus=self._gpus,
            num_workers=0,
            progress_bar=False,
        )
        return [float(score) for score in found.scores]


def serve(connection: Connection) -> None:
    """Answers requests until the connection closes."""
    server = Server()
    requests: dict[str, Any] = {"start": server.start, "score": server.score}
    while True:
        try:
            name, arguments = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        answer: tuple[Any, ...]
        try:
            answer = ("done", requests[name](*arguments))
        except BaseException as error:
            answer = ("failed", f"{type(error).__name__}: {error}", traceback.format_exc())
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return


def end_with(parent: int) -> None:
    """Ends this process when its parent has ended, even during a call that hangs."""
    while os.getppid() == parent:
        time.sleep(EVERY)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(int(sys.argv[2]),), daemon=True).start()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    serve(Connection(int(sys.argv[1])))
    os._exit(0)
