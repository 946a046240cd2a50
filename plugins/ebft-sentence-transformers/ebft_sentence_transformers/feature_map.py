"""φ from a text encoder: an embedding of the decoded rollout that was trained to compare texts."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from ebft.parts.kinds import FeatureMapPart
from ebft.parts.part import Claim, Resources
from ebft.rollout.records import Features, Rollouts
from ebft_sentence_transformers.encoder import TextEncoder, load_encoder
from ebft_sentence_transformers.texts import Text, reference_texts, rollout_texts


class SentenceTransformers(FeatureMapPart):
    """φ from a sentence-transformers model, or any HF encoder, on the decoded text.

    The encoder has its own tokenizer, so rollouts that decode to the same text have the same
    features. A text that is longer than the encoder's limit is truncated at its beginning, so that
    the completion is kept.
    """

    path: str = Field(
        description="a local folder or a hub id; HF encoders that are not sentence-transformers "
        "models are mean-pooled"
    )
    text: Text = Field(
        "completion",
        description="completion: the rollout alone; context_and_completion: after its context, so "
        "that φ is conditional on it",
    )
    normalize: bool = Field(True, description="L2-normalise each text's features")
    prompt: str = Field("", description="prepended to every text, for encoders that need one")
    batch_size: int = Field(64, ge=1, description="texts in a forward pass of the encoder")
    cached_references: int = Field(
        100_000, ge=0, description="references whose features are kept from one epoch to the next"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="dtype of the encoder's weights; features are float32"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code from the hub; only for repositories that you trust"
    )

    def claim(self) -> Claim:
        return Claim(True, "a fixed function of each rollout's text, by a frozen encoder")

    def base_depth(self) -> float:
        """0: it does not use the base model. The cost model does not include its encoder."""
        return 0.0

    def build(self, resources: Resources) -> SentenceTransformersMap:
        """Loads the encoder on the policy's device.

        Raises `UserError` if sentence-transformers or the model cannot be loaded.
        """
        model = load_encoder(
            self.path,
            device=resources.device,
            dtype=getattr(torch, self.dtype),
            trust_remote_code=self.trust_remote_code,
        )
        encoder = TextEncoder(
            model,
            normalize=self.normalize,
            prompt=self.prompt,
            batch_size=self.batch_size,
            cached=self.cached_references,
        )
        return SentenceTransformersMap(self.text, encoder, resources)


class SentenceTransformersMap:
    """`SentenceTransformers` bound to an encoder and to the policy's tokenizer."""

    def __init__(self, text: Text, encoder: TextEncoder, resources: Resources) -> None:
        self._text, self._encoder, self._tokenizer = text, encoder, resources.tokenizer

    def __call__(self, rollouts: Rollouts) -> Features:
        P, n, _ = rollouts.tokens.shape
        samples = self._encoder(rollout_texts(rollouts, self._tokenizer, self._text))
        references = self._encoder.cached(
            reference_texts(rollouts.contexts, self._tokenizer, self._text)
        )
        device = rollouts.tokens.device
        return Features(samples.view(P, n, -1).to(device), references[:, None].to(device))
