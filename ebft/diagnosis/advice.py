"""A recommendation in the recipe's own keys, and what a run with it would cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, inf, isfinite

from ebft.diagnosis.figures import Figures
from ebft.scoring.gradient_signal import GradientSignal
from ebft.scoring.pairs import Ratio

DIGITS = 2


@dataclass(frozen=True, slots=True)
class Needed:
    """Documents that a step needs for as much signal as noise.

    `at_least` means that the signal is not told from zero, and `documents` is the lower limit; it
    is None if not even that is known.
    """

    documents: int | None
    at_least: bool

    @classmethod
    def of(cls, scale: Ratio) -> Needed:
        if scale.told:
            return cls(max(ceil(scale.value), 1), at_least=False)
        return cls(ceil(scale.low) if scale.low >= 1 else None, at_least=True)

    def reason(self, scale: Ratio, measured: int) -> str:
        """Why so many, with the number of documents that were measured."""
        if self.at_least:
            return (
                f"not told from zero with {measured:,} documents: at least {self.documents:,} "
                "documents"
            )
        return f"as much signal as noise ({scale.low:,.0f} to {scale.high:,.0f})"


@dataclass(frozen=True, slots=True)
class Run:
    """The shortest run with an effect: its steps, FLOPs and hours; infinite if there is no signal.

    `at_least`: the signal is not told from zero, and its upper limit was taken.
    """

    n: int
    documents_per_step: int
    steps: float
    flop: float
    hours: float
    at_least: bool


@dataclass(frozen=True, slots=True)
class Advice:
    """Values for the recipe's keys, each with its reason; empty if the recipe is as good as any."""

    keys: Mapping[str, str]
    reasons: Mapping[str, str]


def advise(figures: Figures, *, n: int, documents_per_step: int, gamma: float) -> Advice:
    """Recommends n, the documents of a step, and γ, as far as the measurement tells them."""
    keys: dict[str, str] = {}
    reasons: dict[str, str] = {}
    scale = figures.cross_entropy.noise_scale()
    if figures.policy is not None and figures.rollouts is not None:
        best = figures.rollouts.best()
        if best != n:
            gain = figures.rollouts.relative(best)
            cost = "rollouts" if figures.rollouts.flop is None else "FLOPs"
            keys["sampler.n"] = str(best)
            reasons["sampler.n"] = (
                f"the same noise with {gain.value:.2f} times the {cost} "
                f"({gain.low:.2f} to {gain.high:.2f})"
            )
        scale = figures.at(best).noise_scale()
    needed = Needed.of(scale)
    if needed.documents is not None and needed.documents > documents_per_step:
        keys["training.documents_per_step"] = str(needed.documents)
        reasons["training.documents_per_step"] = needed.reason(scale, figures.documents)
    equal = figures.gamma
    if equal is not None and equal.told and equal.low > 0 and not equal.low <= gamma <= equal.high:
        keys["objective.gamma"] = f"{equal.value:.{DIGITS}g}"
        reasons["objective.gamma"] = (
            "both expected gradients are equally long "
            f"({equal.low:.{DIGITS}g} to {equal.high:.{DIGITS}g})"
        )
    return Advice(keys, reasons)


def run_for(
    effect: float,
    parts: GradientSignal,
    *,
    n: int,
    documents_per_step: int,
    progress: Callable[[float, float], float],
    flop: float | None,
    rate: float,
) -> Run:
    """The steps that lower the loss by `effect`, if each does what the first does.

    `progress(signal, noise)` is the decrease in a step, `flop` the FLOPs of a document (None: not
    known), `rate` the FLOPs in a second (0: not known).
    """
    interval = parts.signal.interval()
    told = interval.mean > interval.half_width
    signal = interval.mean if told else interval.mean + interval.half_width
    step = progress(signal, max(parts.noise.value, 0.0) / documents_per_step) if signal > 0 else 0.0
    steps = max(effect / step, 1.0) if isfinite(signal) and step > 0 else inf
    total = inf if flop is None else steps * documents_per_step * flop
    hours = total / rate / 3600 if rate > 0 else inf
    return Run(n, documents_per_step, steps, total, hours, at_least=not told)
