"""Random small problems, in float64."""

import torch
from hypothesis import strategies as st

seeds = st.integers(0, 2**31 - 1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def distribution(seed: int, V: int) -> torch.Tensor:
    """Positive probabilities of V outcomes."""
    return normal(seed, V).softmax(0)


@st.composite
def problems(draw, V=3, D=2):
    """Logits of the policy, distribution of the truth, features of each outcome."""
    seed = draw(seeds)
    return normal(seed, V), distribution(seed + 1, V), normal(seed + 2, V, D)
