"""`check_baseline`: are advantages valid, and is the claim about bias true?"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.parts.interfaces import Baseline
from ebft.parts.kinds import BaselinePart
from ebft.parts.part import Part, Resources
from ebft.parts.stateful import Stateful
from ebft.rollout.records import Terms
from ebft.testing.common import Unchanged, check_options, check_tensor, close, require
from ebft.testing.tiny import tiny_resources

CONTEXTS = 3


def check_baseline(
    part: Part, resources: Resources | None = None, *, tolerance: float = 1e-9
) -> None:
    """Checks a baseline on random terms for n = 1 … 5, over several steps as in a run.

    It checks shapes, dtype and finiteness; a state that can be saved and loaded; and the claim:
    unbiased means that no b_j = r_j − A_j depends on a term that touches rollout j, and biased that
    some b_j does. Raises `AssertionError`.
    """
    check_options(part, BaselinePart)
    resources = tiny_resources() if resources is None else resources
    for n in (1, 2, 3, 4, 5):
        for dtype in (torch.float32, torch.float64):
            baseline = part.build(resources)
            require(part, isinstance(baseline, Baseline), "build() returns something to call")
            for step in range(3):
                terms = random_terms(n, seed=step, dtype=dtype)
                unchanged = Unchanged(terms)
                advantages = baseline(terms)
                require(part, bool(unchanged), "it does not modify its input")
                check_tensor(part, f"advantages with n = {n}", advantages, (CONTEXTS, n))
                require(part, advantages.dtype == dtype, "the dtype is that of the input")
            _check_state(part, baseline, n, resources)
    _check_order(part, resources, tolerance)
    _check_claim(part, resources, tolerance)


def random_terms(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Terms:
    """Returns terms of n rollouts for each of 3 contexts; pairwise terms are not symmetric."""
    generator = torch.Generator().manual_seed(seed)
    unary = torch.randn(CONTEXTS, n, generator=generator, dtype=torch.float64)
    pairwise = torch.randn(CONTEXTS, n, n, generator=generator, dtype=torch.float64)
    pairwise.diagonal(dim1=1, dim2=2).zero_()
    return Terms(unary.to(dtype), pairwise.to(dtype))


def _check_state(part: Part, baseline: Baseline, n: int, resources: Resources) -> None:
    if not isinstance(baseline, Stateful):
        return
    resumed = part.build(resources)
    resumed.load_state_dict(baseline.state_dict())
    terms = random_terms(n, seed=9)
    require(
        part,
        torch.equal(resumed(terms), baseline(terms)),
        "with the state loaded, it continues as the one that saved it",
    )


def _check_order(part: Part, resources: Resources, tolerance: float) -> None:
    terms = random_terms(4)
    flipped = Terms(terms.unary.flip(1), terms.pairwise.flip(1, 2))
    require(
        part,
        close(_advantages(part, flipped, resources).flip(1), _advantages(part, terms, resources),
              tolerance),
        "rollouts in another order have their advantages in that order",
    )  # fmt: skip


def _check_claim(part: Part, resources: Resources, tolerance: float) -> None:
    claim = part.claim()
    if claim is None:
        return
    touched = [
        (n, j) for n in (2, 3, 4) for j in range(n) if _depends_on(part, n, j, resources, tolerance)
    ]
    if claim.unbiased:
        where = f", as it does for n = {touched[0][0]}, j = {touched[0][1]}" if touched else ""
        require(
            part,
            not touched,
            f"claims to be unbiased: b_j = r_j − A_j depends on no term of rollout j{where}",
        )
    else:
        require(
            part, bool(touched), "claims to be biased: some b_j = r_j − A_j depends on rollout j"
        )


def _depends_on(part: Part, n: int, j: int, resources: Resources, tolerance: float) -> bool:
    """Returns whether b_j changes when every term that touches j changes."""
    terms, other = random_terms(n, seed=1), random_terms(n, seed=2)
    unary, pairwise = terms.unary.clone(), terms.pairwise.clone()
    unary[:, j], pairwise[:, j], pairwise[:, :, j] = (
        other.unary[:, j], other.pairwise[:, j], other.pairwise[:, :, j],
    )  # fmt: skip
    changed = Terms(unary, pairwise)
    before, after = ((t.reward() - _advantages(part, t, resources))[:, j] for t in (terms, changed))
    return not close(after, before, tolerance)


def _advantages(part: Part, terms: Terms, resources: Resources) -> Float[Tensor, "P n"]:
    """Returns the advantages of a second step, after a first step that is always the same."""
    baseline: Baseline = part.build(resources)
    baseline(random_terms(terms.unary.shape[1], seed=7))
    return baseline(terms)
