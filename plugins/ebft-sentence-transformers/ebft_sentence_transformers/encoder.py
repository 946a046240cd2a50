"""A text encoder: loading it, encoding each distinct text once, and caching references."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

INSTALL = "pip install 'sentence-transformers>=6.2,<7'"


def load_encoder(
    path: str, *, device: torch.device, dtype: torch.dtype, trust_remote_code: bool
) -> SentenceTransformer:
    """Returns the encoder, frozen, in eval mode.

    Raises `UserError` if sentence-transformers or the model at `path` cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(
            f"feature_map = sentence_transformers: sentence-transformers cannot be imported "
            f"({error}); {INSTALL}"
        ) from error
    folder = Path(path).expanduser()
    local = path.startswith((".", "/", "~")) or path.count("/") > 1
    if local and not (folder / "config.json").is_file():
        raise UserError(
            f"feature_map.path = {path}: there is no folder with a config.json; give a folder "
            "that a text encoder was saved in, or a hub id"
        )
    try:
        model = SentenceTransformer(
            str(folder) if local else path,
            device=str(device),
            trust_remote_code=trust_remote_code,
            model_kwargs={"dtype": dtype},
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            f"feature_map.path = {path}: cannot be loaded as a text encoder "
            f"({reason[0] if reason else type(error).__name__})"
        ) from error
    # The completion is at the end of a text, so texts are truncated at the beginning.
    model.tokenizer.truncation_side = "left"
    return model.requires_grad_(False).eval()


def without_norm(model: SentenceTransformer) -> SentenceTransformer:
    """Removes the L2 normalisation that many models end with, in place; returns the model."""
    from sentence_transformers.models import Normalize

    for name, module in list(model.named_children()):
        if isinstance(module, Normalize):
            del model[int(name)]
    return model


class TextEncoder:
    """Texts → features [N, D] in float32; equal texts of a call are encoded once."""

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        normalize: bool,
        prompt: str,
        batch_size: int,
        cached: int,
    ) -> None:
        # Otherwise normalize=false would have no effect on a model that ends with a norm.
        self._model = model if normalize else without_norm(model)
        self._normalize = normalize
        self._prompt, self._batch_size = prompt, batch_size
        self._limit = cached
        self._known: OrderedDict[str, Float[Tensor, " D"]] = OrderedDict()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        distinct = list(dict.fromkeys(texts))
        place = {text: i for i, text in enumerate(distinct)}
        features: Tensor = self._model.encode(
            [self._prompt + text for text in distinct],
            batch_size=self._batch_size,
            normalize_embeddings=self._normalize,
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        # Cloned because `encode` returns inference tensors, which autograd cannot save.
        features = features.clone().float()
        return features[[place[text] for text in texts]]

    def cached(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """The same with a cache (least recently used) of the features of earlier texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        fresh = dict(zip(new, self(new), strict=True)) if new else {}
        found = {text: fresh[text] if text in fresh else self._known[text] for text in texts}
        for text, features in found.items():
            self._known[text] = features
            self._known.move_to_end(text)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
        return torch.stack([found[text] for text in texts])
