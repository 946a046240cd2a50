"""Transform `project`: a fixed random projection to fewer dimensions."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from ebft.parts import Claim, Part, Resources
from ebft.rollout.records import Features


class Project(Part):
    """φ̃ = Rφ with independent normal entries of variance 1/d, the same for the whole run.

    E φ̃·φ̃' = φ·φ' over the draw of R (Johnson & Lindenstrauss), with an error of order 1/√d.
    Cheaper rewards for wide features; also a check that a result does not hang on the basis.
    """

    dimensions: PositiveInt = Field(description="d, dimensions to project to")
    seed: int | None = Field(None, ge=0, description="of R; null: the recipe's seed")

    def claim(self) -> Claim:
        return Claim(True, "a fixed linear map: the loss is that of the projected features")

    def build(self, resources: Resources) -> Projection:
        return Projection(self.dimensions, resources.seed if self.seed is None else self.seed)


class Projection:
    """`Project` with its matrix, drawn when the width of the features is first seen."""

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
    """Normal entries of variance 1/columns, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64) / sqrt(columns)
