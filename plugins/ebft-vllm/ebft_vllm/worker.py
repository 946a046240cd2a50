"""What vLLM's workers learn: to take weights from memory that another process has filled."""

from __future__ import annotations

from typing import Any

from ebft_vllm.shared import open_weights


class LoadsFromMemory:
    """`worker_extension_cls`: vLLM adds this method to each of its workers.

    Tensors cannot be arguments of a remote call, a path can: so it serves one worker in the
    engine's process and one process for each GPU alike.
    """

    def load_from_memory(self, path: str, layout: list[dict[str, Any]]) -> None:
        """Reloads the model from mapped memory, repacking what vLLM packs, a tied head included."""
        with open_weights(path, layout) as weights:
            self.reload_weights(weights_iterator=iter(weights.items()))  # type: ignore[attr-defined]
