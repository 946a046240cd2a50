"""φ from a text encoder: what a rollout says, in an embedding that was trained to compare texts."""

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

    The encoder sees text, not tokens: it has a tokenizer of its own, and tokens of the policy that
    decode to the same text have the same features. A text that is longer than the encoder's limit
    loses its beginning, so that the completion stays.
    """

    path: str = Field(
        description="a local folder or a hub id; HF encoders that are no sentence-transformers "
        "models are pooled by their mean"
    )
    text: Text = Field(
        "completion",
        description="completion: the rollout alone; context_and_completion: after its context, so "
        "that φ is conditional on it",
    )
    normalize: bool = Field(True, description="L2-normalise each text's features")
    prompt: str = Field("", description="put before every text, for encoders that want one")
    batch_size: int = Field(64, ge=1, description="texts put through the encoder at a time")
    cached_references: int = Field(
        100_000, ge=0, description="references whose features are kept from one epoch to the next"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="the encoder's weights; features are float32"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with a hub id; only for those you trust"
    )

    def claim(self) -> Claim:
        return Claim(True, "a fixed function of each rollout's text, of a frozen encoder")

    def base_depth(self) -> float:
        """It has a network of its own, which estimates do not know."""
        return 0.0

    def build(self, resources: Resources) -> SentenceTransformersMap:
        """The map with its encoder loaded, on the policy's device.

        Raises `UserError` if sentence-transformers or the model is not there.
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
