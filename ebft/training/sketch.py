"""Sketches of gradients: vectors small enough to keep many, with the same inner products.

A Gram matrix of many gradients needs all of them at once, and each is as large as the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SIZE = 1_048_573
"""Numbers of a sketch: a prime, so that no period of a weight matrix lines up with the folds."""


class Sketch:
    """A linear map of gradients to at most `size` numbers, the same for all gradients of a model.

    The gradient is laid out as one vector, cut into pieces of `size`, and the pieces are added with
    random signs. This is a count sketch (Charikar et al. 2002; Weinberger et al. 2009) with fixed
    places: ⟨Sx, Sy⟩ has the mean ⟨x, y⟩ over signs, and a variance of about
    (|x|²|y|² + ⟨x, y⟩²)/size, if x and y have their squares spread over the places. With the
    default size that is 0.1 % of |x||y|, far below the noise of inner products of gradients. A
    model of at most `size` weights has the gradient itself as its sketch.

    Each piece has the same signs at another rotation, so that no more than two vectors of `size`
    are kept however large the model is.
    """

    def __init__(self, parameters: Iterable[Tensor], *, seed: int, size: int = SIZE) -> None:
        weights = list(parameters)
        total = sum(weight.numel() for weight in weights)
        self._exact = total <= size
        self.size = total if self._exact else size
        self._device = weights[0].device
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(2, (self.size,), generator=generator).float() * 2 - 1
        self._signs = signs.repeat(2).to(self._device)
        pieces = -(-total // self.size)
        assert pieces <= self.size, "each piece has a rotation of its own"
        self._rotations: list[int] = torch.randperm(self.size, generator=generator)[
            :pieces
        ].tolist()

    def __call__(self, gradient: Sequence[Tensor]) -> Float[Tensor, " D"]:
        """The sketch of a gradient, in float32, where the weights are."""
        if self._exact:
            return torch.cat([g.detach().float().flatten() for g in gradient])
        sketch = torch.zeros(self.size, device=self._device)
        piece, place = 0, 0  # where the next number goes
        for g in gradient:
            rest = g.detach().flatten()
            while len(rest):
                now, rest = rest[: self.size - place], rest[self.size - place :]
                start = self._rotations[piece] + place
                sketch[place : place + len(now)].addcmul_(
                    now.float(), self._signs[start : start + len(now)]
                )
                place += len(now)
                if place == self.size:
                    piece, place = piece + 1, 0
        return sketch
