"""An extension of vLLM's workers that loads weights from another process's shared memory."""

from __future__ import annotations

from typing import Any

from ebft_vllm.shared import open_weights


class LoadsFromMemory:
    """`worker_extension_cls`: vLLM adds this method to each of its workers.

    The argument is a path because remote calls cannot have tensors as arguments. It works for a
    worker in the engine's process and for one process per GPU.
    """

    def load_from_memory(self, path: str, layout: list[dict[str, Any]]) -> None:
        """Loads the model's weights from shared memory; vLLM repacks them, also a tied head."""
        with open_weights(path, layout) as weights:
            self.reload_weights(weights_iterator=iter(weights.items()))  # type: ignore[attr-defined]
