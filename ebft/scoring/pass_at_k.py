"""pass@k: the probability that one of k attempts passes."""

from __future__ import annotations

from math import comb


def pass_at_k(n: int, passed: int, k: int) -> float:
    """1 − C(n − c, k) / C(n, k), an unbiased estimate from n attempts of which c passed.

    It is the share of subsets of k attempts with at least one that passed (Chen et al. 2021,
    equation 1). `1 − (1 − c/n)^k` would underestimate. Raises `ValueError` unless 1 ≤ k ≤ n and
    0 ≤ c ≤ n.
    """
    if not (1 <= k <= n and 0 <= passed <= n):
        raise ValueError(f"pass@{k} of {n} attempts of which {passed} passed is not defined")
    return 1 - comb(n - passed, k) / comb(n, k)
