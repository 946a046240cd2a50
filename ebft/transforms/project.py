"""Transform `project`: a fixed random projection to fewer dimensions."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from jaxtyping import Float
from pydantic import Field, PositiveInt

from ebft.lazy import Tensor, torch
from ebft.parts.part import Claim, Part, Resources
from ebft.rollout.records import Features


class Project(Part):
    """φ̃ = Rφ with independent normal entries of variance 1/d, the same for the whole run.

    E φ̃·φ̃' = φ·φ' over the draw of R (Johnson & Lindenstrauss), with an error of order 1/√d.
    It makes rewards of wide features cheaper, and shows whether a result depends on the basis.
    """

    dimensions: PositiveInt = Field(description="d, the number of dimensions after projection")
    seed: int | None = Field(None, ge=0, description="seed of R; null: the recipe's seed")

    def claim(self) -> Claim:
        return Claim(True, "a fixed linear map: the loss is that of the projected features")

    def build(self, resources: Resources) -> Projection:
        return Projection(self.dimensions, resources.seed if self.seed is None else self.seed)


class Projection:
    """`Project` with its matrix, which is drawn at the first call, for the features' width."""

    def __init__(self, dimensions: int, seed: int) -> None:
        self._dimensions, self._seed = dimensions, seed
        self._matrix: Tensor | None = None

    def __call__(self, features: Features) -> Features:
        D, like = features.samples.shape[-1], features.samples
        if self._matrix is None or self._matrix.shape[0] != D:
            self._matrix = projection(D, self._dimensions, self._seed).to(like)
        return replace(
            features,
            samples=features.samples @ self._matrix,
            references=features.references @ self._matrix,
            layers=1,
            stacked=False,
        )


def projection(rows: int, columns: int, seed: int) -> Float[Tensor, "D d"]:
    """Returns a matrix of normal entries with variance 1/columns, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64) / sqrt(columns)
