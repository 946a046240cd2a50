"""What a trainer and a server must agree on before they exchange anything else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERSION = "0.1.0"
"""Of this package."""
PROTOCOL = 1
"""The version of the messages; it changes with them."""
NOT_COMPARED = frozenset(
    {
        "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "return_dict",
        "quantization_config", "bos_token_id", "eos_token_id", "pad_token_id",
    }
)  # fmt: skip
"""Entries of a configuration that do not change the log-probs of given tokens."""


def identity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Returns what identifies this program, a model's architecture and its vocabulary; plain data.

    The model may be an outline without weights.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
    config = json.loads(model.config.to_json_string(use_diff=False))
    return {
        "protocol": PROTOCOL,
        "ebft_vllm": VERSION,
        "class": type(model).__name__,
        "config": dict(_flat(config)),
        "vocabulary": sha256(json.dumps(vocabulary).encode()).hexdigest(),
    }


def difference(server: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """Returns one sentence about what differs, with the fix; None if trainer and server fit."""
    if server.get("protocol") != ours["protocol"] or server["ebft_vllm"] != ours["ebft_vllm"]:
        return (
            f"runs ebft-vllm {server.get('ebft_vllm')} (protocol {server.get('protocol')}), and "
            f"this process {ours['ebft_vllm']} (protocol {ours['protocol']}); install the same "
            "version for both"
        )
    remedy = "start `ebft-vllm serve` with the model of model.path"
    if server["class"] != ours["class"]:
        return f"serves a {server['class']}, and the policy is a {ours['class']}; {remedy}"
    theirs, own = server["config"], ours["config"]
    # Other versions of transformers may have more entries, whose defaults change nothing.
    for key in sorted(theirs.keys() & own.keys()):
        if theirs[key] != own[key]:
            return (
                f"serves another model: its {key} is {json.dumps(theirs[key])}, and the policy's "
                f"{json.dumps(own[key])}; {remedy}"
            )
    if server["vocabulary"] != ours["vocabulary"]:
        return f"serves a model with another vocabulary than the policy's tokenizer has; {remedy}"
    return None


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the entries that are compared, those of nested sections by their whole names."""
    for key, value in config.items():
        if key in NOT_COMPARED or key.startswith("_") or key == "architectures":
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
