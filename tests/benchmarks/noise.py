"""Whether the recommendation of `ebft noise`, followed, gives the predicted ratio.

    python -m tests.benchmarks.noise recipes/ebft_tiny_programs.yaml --documents 96

Measures a recipe, and then, on other documents, the recipe and what was recommended beside it.
Predicted and measured are compared: noise × FLOPs of the recommended n relative to the recipe's n,
and signal ÷ noise of a step with the recommended documents. Each should agree within a factor of
1.5; where the signal is not told from zero, the second prediction is a limit. Exit status 1 if one
does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ebft.diagnosis.alternatives import load_alternatives
from ebft.diagnosis.run import diagnose
from ebft.diagnosis.table import relative_to
from ebft.scoring.pairs import Ratio

FACTOR = 1.5


@dataclass(frozen=True)
class Comparison:
    """A ratio that was predicted, and as measured on other documents."""

    what: str
    predicted: float
    measured: Ratio
    at_most: bool = False

    @property
    def agrees(self) -> bool:
        """Within the factor, or not told apart: the interval of what is measured is as wide."""
        low, high = self.measured.low / FACTOR, self.measured.high * FACTOR
        if self.at_most:
            return low <= self.predicted
        return low <= self.predicted <= high

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "="
        found = self.measured
        verdict = "agrees" if self.agrees else "DIFFERS"
        return (
            f"{self.what}: predicted {sign} {self.predicted:.3g}, measured {found.value:.3g} "
            f"({found.low:.3g} to {found.high:.3g}): {verdict}"
        )


def follow(file: Path, overrides: Sequence[str], *, documents: int) -> list[Comparison]:
    """Measures with seed 0, follows the recommendation, and measures with seed 1."""
    (first,) = diagnose(
        load_alternatives(file, [*overrides, "seed=0"], []), documents=documents, effect=0.02
    ).results
    figures = first.figures
    assert figures.rollouts is not None, "a recipe with rollouts"
    assert figures.policy is not None
    own = figures.rollouts.n
    best = int(first.advice.keys.get("sampler.n", own))
    scale = figures.at(best).noise_scale()
    step = first.alternative.options.training.documents_per_step
    chosen = int(first.advice.keys.get("training.documents_per_step", step))

    again = diagnose(
        load_alternatives(file, [*overrides, "seed=1"], [f"sampler.n={best}"] * (best != own)),
        documents=documents, effect=0.02,
    ).results  # fmt: skip
    found = []
    if (relative := relative_to(again[-1], again[0])) is not None:
        predicted = figures.rollouts.relative(best).value
        found.append(Comparison(f"noise × FLOPs, n = {best} to {own}", predicted, relative))
    policy = again[-1].figures.policy
    assert policy is not None
    other = policy.noise_scale()
    inverse = Ratio(
        chosen / other.value, chosen / other.high, chosen / other.low if other.low else float("inf")
    )
    predicted = chosen / (scale.value if scale.told else max(scale.low, 1e-9))
    found.append(
        Comparison(
            f"signal ÷ noise, n = {best}, {chosen} documents", predicted, inverse,
            at_most=not scale.told,
        )
    )  # fmt: skip
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="follows the recommendation of ebft noise")
    parser.add_argument("file", type=Path)
    parser.add_argument("overrides", nargs="*", default=[])
    parser.add_argument("--documents", type=int, default=48)
    given = parser.parse_args()
    comparisons = follow(given.file, given.overrides, documents=given.documents)
    print(*comparisons, sep="\n")
    return int(not all(it.agrees for it in comparisons))


if __name__ == "__main__":
    sys.exit(main())
