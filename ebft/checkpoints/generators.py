"""The state of everybody's random generators: torch's, numpy's and Python's own.

ebft draws nothing from them, for its own streams are functions of the step; but a plug-in may.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

log = logging.getLogger("ebft")


def gather_random(device: torch.device) -> dict[str, Any]:
    """The state now; of CUDA's generators if `device` is a GPU."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state(legacy=True))
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def restore_random(state: Mapping[str, Any], device: torch.device) -> None:
    """Gives the generators the state that `gather_random` read off them.

    CUDA's keep theirs, with a warning, if there is another number of GPUs now.
    """
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        else:
            log.warning(
                "%d GPUs are here and %d were: torch's generators on them start anew",
                torch.cuda.device_count(), len(state["cuda"]),
            )  # fmt: skip
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])
