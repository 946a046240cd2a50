"""The findings as JSON, every figure with its interval."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from ebft.diagnosis.table import relative_to
from ebft.parts.version import __version__

if TYPE_CHECKING:
    from ebft.diagnosis.figures import Figures
    from ebft.diagnosis.run import Findings, Result
    from ebft.scoring.gradient_signal import GradientSignal
    from ebft.scoring.interval import Interval
    from ebft.scoring.pairs import PairStatistic, Ratio


def findings_json(findings: Findings) -> str:
    """JSON with null for what is infinite or not known."""
    record = {
        "ebft": __version__,
        "documents": findings.documents,
        "texts": findings.clusters,
        "seed": findings.seed,
        "effect": findings.effect,
        "seconds": findings.seconds,
        "flop_per_second": findings.rate or None,
        "alternatives": [_result(one, findings.results[0]) for one in findings.results],
    }
    return json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _result(result: Result, first: Result) -> dict[str, Any]:
    options, figures = result.alternative.options, result.figures
    relative = relative_to(result, first)
    return {
        "override": result.alternative.override,
        "n": None if options.sampler is None else options.sampler.n,
        "documents_per_step": options.training.documents_per_step,
        "gamma": options.objective.gamma,
        "policy_gradient": None if figures.policy is None else _signal(figures.policy),
        "cross_entropy": _signal(figures.cross_entropy),
        "product": None if figures.product is None else _statistic(figures.product),
        "gamma_of_equal_signals": None if figures.gamma is None else _ratio(figures.gamma),
        "gamma_of_equal_steps": figures.gamma_of_steps,
        "noise_flop_relative_to_first": None if relative is None else _ratio(relative),
        "other_n": _other_n(figures),
        "contexts_with_spread": None if figures.spread is None else _interval(figures.spread),
        "tau": {
            name: None if it is None else _interval(it)
            for name, it in (figures.ranks or {}).items()
        },
        "gap": figures.gap,
        "recommended": dict(result.advice.keys),
        "runs": [asdict(run) for run in result.runs],
    }


def _signal(parts: GradientSignal) -> dict[str, Any]:
    return {
        "signal": _statistic(parts.signal),
        "noise_of_documents": _statistic(parts.documents),
        "noise_of_rollouts": _statistic(parts.rollouts),
        "noise_scale": _ratio(parts.noise_scale()),
    }


def _other_n(figures: Figures) -> list[dict[str, Any]]:
    if figures.rollouts is None:
        return []
    return [
        {
            "n": n,
            "noise": _statistic(one),
            "flop": None if figures.rollouts.flop is None else figures.rollouts.flop(n),
            "noise_cost_relative": _ratio(figures.rollouts.relative(n)),
        }
        for n, one in figures.rollouts.noise.items()
    ]


def _statistic(statistic: PairStatistic) -> dict[str, float]:
    return _interval(statistic.interval())


def _interval(interval: Interval) -> dict[str, float]:
    return {"value": interval.mean, "half_width": interval.half_width}


def _ratio(found: Ratio) -> dict[str, float]:
    return asdict(found)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
