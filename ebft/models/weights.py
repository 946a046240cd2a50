"""Whether a model's weights are the right ones: those of its files, those that a run had before.

transformers makes up weights that it does not find, at random, and leaves out those that the model
has no place for; either is another model than the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ebft.models.quantize import dense
from ebft.models.rows import evenly_spaced

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FIRST = 3
"""Weights that are named of many."""
SAMPLED = 1024
"""Values of each weight that are looked at: enough to tell models apart, in milliseconds."""


def not_arrived(model: PreTrainedModel, info: Mapping[str, Any]) -> str | None:
    """What differs between a model and its files, and what to do; None if nothing does.

    `info` is what `from_pretrained` returns with `output_loading_info` and
    `ignore_mismatched_sizes`. Weights that are tied to one that is there are not missing.
    """
    unexpected = sorted(info["unexpected_keys"])
    if missing := [name for name in model.state_dict() if name in info["missing_keys"]]:
        added = _added_to_names(set(missing), unexpected)
        remedy = "give a model that has them all"
        if added is not None:
            remedy = (
                f"their names have {added!r} in them, as a wrapper puts it there; save the model "
                "without that"
            )
        return f"its files lack {_some(missing)}; {remedy}"
    if mismatched := sorted(info["mismatched_keys"], key=lambda it: str(it[0])):
        name, there, wanted = mismatched[0]
        return (
            f"{name} has the shape {list(there)} in its files, and {list(wanted)} by its "
            "config.json; give the configuration that the weights were saved with"
        )
    modules = dict(model.named_modules())
    outside = ("", model.base_model_prefix)
    if left_out := [name for name in unexpected if _is_of_decoder(name, modules, outside)]:
        return (
            f"its config.json has no place for {_some(left_out)} of its files; give the "
            "configuration that the weights were saved with"
        )
    return None


def _some(names: Collection[str]) -> str:
    """`3 weights (a, b, c)`, or the first of them."""
    first = ", ".join(list(names)[:FIRST]) + (", …" if len(names) > FIRST else "")
    return f"{len(names)} weight{'s' if len(names) > 1 else ''} ({first})"


def _added_to_names(missing: Collection[str], unexpected: Collection[str]) -> str | None:
    """What the names in the files have in addition: `module.`, `_orig_mod.`, …"""
    for name in unexpected:
        parts = name.split(".")
        for i in range(len(parts)):
            for added, rest in ((parts[i : i + 1], parts[:i] + parts[i + 1 :]),
                                (parts[: i + 1], parts[i + 1 :])):  # fmt: skip
                if ".".join(rest) in missing:
                    return ".".join(added) + "."
    return None


def _is_of_decoder(name: str, modules: Mapping[str, nn.Module], outside: Collection[str]) -> bool:
    """Whether a weight that has no place is of the network that computes: a bias or a scale of one
    of its matrices, or of a layer more. A head beside the LM head, or a vision tower, is not, and
    masks that older models kept in their files are no weights.
    """
    parent, _, kind = name.rpartition(".")
    if parent in modules:
        return isinstance(getattr(modules[parent], "weight", None), Tensor)
    while parent not in modules:
        parent = parent.rpartition(".")[0]
    return kind == "weight" and parent not in outside


def digest_weights(model: PreTrainedModel) -> str:
    """A digest of the names and shapes of all weights, and of evenly spaced values of each.

    If the weights are divided over processes, all of them must call it.
    """
    digest = blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        values = evenly_spaced(dense(weight.detach()), SAMPLED).cpu()
        digest.update(f"{name}\0{tuple(weight.shape)}\0".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
