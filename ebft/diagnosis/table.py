"""The findings on the terminal: a column for each alternative, and what is recommended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

from rich.table import Table

from ebft.scoring.gradient_signal import cosine
from ebft.scoring.pairs import PairStatistic, Ratio, ratio

if TYPE_CHECKING:
    from ebft.diagnosis.advice import Run
    from ebft.diagnosis.figures import Figures
    from ebft.diagnosis.run import Findings, Result

NONE, NOT_TOLD = "—", "not told"
Row = tuple[str, "Callable[[Result], str]"]
"""The name of a figure, and its text for an alternative."""
SAME_OBJECTIVE = ("plan", "feature_map", "transforms", "reward", "objective")
"""Sections that decide what is minimised: where they are equal, signals are the same."""


def findings_table(findings: Findings) -> Table:
    """Every figure of every alternative, with 95 % intervals."""
    texts = "" if findings.clusters == findings.documents else f" from {findings.clusters} texts"
    table = Table(
        title=f"gradients of {findings.documents} documents{texts} (± and ranges: 95 % confidence)",
        title_justify="left", show_edge=False,
    )  # fmt: skip
    table.add_column("")
    for result in findings.results:
        table.add_column(result.alternative.label, justify="right", overflow="fold")
    shown: list[str] = []
    for section in sections(findings):
        for name, cell in section:
            cells = [cell(result) for result in findings.results]
            if any(one != NONE for one in cells):
                table.add_row(name, *cells)
                shown += cells
        table.add_section()
    if any(NOT_TOLD in cell for cell in shown):
        table.caption = (
            f"{NOT_TOLD}: from zero, with {findings.documents} documents; ≥, ≤: the limit of the "
            "interval"
        )
        table.caption_justify = "left"
    return table


def sections(findings: Findings) -> list[list[Row]]:
    """The rows of the table: the name of each figure, and its text for an alternative."""
    first, percent = findings.results[0], f"{findings.effect:.2g}"
    policy: list[Row] = [
        ("policy gradient: signal |G|²", _signal),
        ("  noise of a document", _noise),
        ("  from rollouts", _from_rollouts),
        ("  from documents, references", _from_documents),
        ("  documents for signal = noise", _needed_by_policy),
        ("  signal ÷ noise of a step", _of_step),
        ("  best n", _best),
        ("  noise × FLOPs, to the first", lambda result: _paired(result, first)),
    ]
    cross_entropy: list[Row] = [
        ("γ · cross-entropy: signal |γG|²", _signal_of_cross_entropy),
        ("  noise of a document", _noise_of_cross_entropy),
        ("  documents for signal = noise", _needed_by_cross_entropy),
        ("γ of equal signals", _gamma),
        ("γ of equal steps", _gamma_of_steps),
        ("cosine of the signals", _cosine),
    ]
    names = dict.fromkeys(name for it in findings.results for name in it.figures.ranks or {})
    rewards: list[Row] = [
        ("contexts with a spread of rewards", _spread),
        *((f"τ of reward and {name}", partial(_agreement, name)) for name in names),
    ]
    run: list[Row] = [
        (f"a run that closes {percent} of the gap: steps", _steps),
        ("  TFLOP", _tflop),
        ("  hours on this machine", _hours),
    ]
    return [policy, cross_entropy, rewards, run]


def relative_to(ours: Result, first: Result) -> Ratio | None:
    """Noise × FLOPs of an alternative relative to the first's, on the same documents; None where
    it has another objective, so that its gradients are not comparable."""
    mine, other = ours.figures, first.figures
    same = all(
        getattr(ours.alternative.options, section) == getattr(first.alternative.options, section)
        for section in SAME_OBJECTIVE
    )
    if not same or ours is first or mine.rollouts is None or other.rollouts is None:
        return None
    assert mine.policy is not None
    assert other.policy is not None
    cost = mine.rollouts.cost(mine.rollouts.n) / other.rollouts.cost(other.rollouts.n)
    return ratio(cost * mine.policy.noise, other.policy.noise)


def advice_lines(findings: Findings) -> Iterator[str]:
    """What is recommended for each alternative, as overrides."""
    several = len(findings.results) > 1
    for result in findings.results:
        keys, reasons = result.advice.keys, result.advice.reasons
        title = f"recommended ({result.alternative.label})" if several else "recommended"
        if not keys:
            yield f"{title}: nothing else than what the recipe has"
            continue
        yield f"{title}: {' '.join(f'{key}={value}' for key, value in keys.items())}"
        width = max(map(len, keys))
        yield from (f"  {key:<{width}}  {reasons[key]}" for key in keys)
    if any(result.runs and result.runs[0].at_least for result in findings.results):
        yield (
            "the signal is not told from zero: the documents, steps and FLOPs above are lower "
            "limits; more --documents tell more"
        )


def law_table(figures: Figures) -> Table | None:
    """The noise for other numbers of rollouts, relative to the recipe's; None if unknown."""
    rollouts = figures.rollouts
    if rollouts is None or len(rollouts.noise) < 2:
        return None
    cost = "rollouts" if rollouts.flop is None else "FLOPs"
    table = Table(title="other n, relative to the recipe's", title_justify="left", show_edge=False)
    for column in ("n", "noise", cost, f"noise × {cost}"):
        table.add_column(column, justify="right")
    for n, noise in rollouts.noise.items():
        of_cost = rollouts.cost(n) / rollouts.cost(rollouts.n)
        own = ratio(noise, rollouts.noise[rollouts.n]).value
        relative = "" if n == rollouts.n else _range(rollouts.relative(n))
        table.add_row(str(n), f"{own:.2f}", f"{of_cost:.2f}", relative)
    return table


def _signal(result: Result) -> str:
    policy = result.figures.policy
    return NONE if policy is None else _told(policy.signal)


def _told(statistic: PairStatistic) -> str:
    found = statistic.interval()
    if found.mean <= found.half_width:
        return NOT_TOLD
    return f"{_short(found.mean)} ± {_short(found.half_width)}"


def _short(value: float) -> str:
    """Two digits, or a whole number."""
    return f"{value:,.0f}" if 10 <= abs(value) < 1e6 else f"{value:.2g}"


def _noise(result: Result) -> str:
    policy = result.figures.policy
    return NONE if policy is None else _short(policy.noise.value)


def _from_rollouts(result: Result) -> str:
    policy = result.figures.policy
    return NONE if policy is None else _share_of(policy.rollouts, policy.noise)


def _from_documents(result: Result) -> str:
    policy = result.figures.policy
    return NONE if policy is None else _share_of(policy.documents, policy.noise)


def _share_of(part: PairStatistic, whole: PairStatistic) -> str:
    """The share, in which a negative part is possible, with the half-width of its own interval."""
    if whole.value <= 0:
        return NONE
    share = part.value / whole.value
    half = (part - share * whole).interval().half_width / whole.value
    return f"{share:.0%}" + (f" ± {half:.0%}" if isfinite(half) else "")


def _needed_by_policy(result: Result) -> str:
    policy = result.figures.policy
    return NONE if policy is None else _needed(policy.noise_scale())


def _signal_of_cross_entropy(result: Result) -> str:
    gamma = result.alternative.options.objective.gamma
    return NONE if gamma == 0 else _told(gamma**2 * result.figures.cross_entropy.signal)


def _noise_of_cross_entropy(result: Result) -> str:
    gamma = result.alternative.options.objective.gamma
    noise = gamma**2 * result.figures.cross_entropy.noise.value
    return NONE if gamma == 0 else _short(noise)


def _needed_by_cross_entropy(result: Result) -> str:
    return _needed(result.figures.cross_entropy.noise_scale())


def _needed(scale: Ratio) -> str:
    if scale.told:
        return f"{scale.value:,.0f} ({scale.low:,.0f} to {scale.high:,.0f})"
    return NOT_TOLD if scale.low < 1 else f"{NOT_TOLD}, ≥ {scale.low:,.0f}"


def _of_step(result: Result) -> str:
    policy, training = result.figures.policy, result.alternative.options.training
    if policy is None:
        return NONE
    documents = training.documents_per_step
    scale = policy.noise_scale()
    if scale.told:
        return f"{documents / scale.value:.2g}"
    return NOT_TOLD if scale.low == 0 else f"{NOT_TOLD}, ≤ {documents / scale.low:.2g}"


def _best(result: Result) -> str:
    rollouts = result.figures.rollouts
    if rollouts is None or len(rollouts.noise) < 2:
        return NONE
    best = rollouts.best()
    if best == rollouts.n:
        return f"{best}, as it is"
    return f"{best} or more" if best == max(rollouts.noise) else str(best)


def _paired(result: Result, first: Result) -> str:
    found = relative_to(result, first)
    return NONE if found is None else _range(found)


def _range(found: Ratio) -> str:
    high = f"{found.high:.2f}" if isfinite(found.high) else "∞"
    return f"{found.value:.2f} ({found.low:.2f} to {high})"


def _gamma(result: Result) -> str:
    found = result.figures.gamma
    if found is None:
        return NONE
    if not found.told:
        return NOT_TOLD
    if found.low <= 0:
        return f"{NOT_TOLD}, ≤ {found.high:.2g}"
    return f"{found.value:.2g} ({found.low:.2g} to {found.high:.2g})"


def _gamma_of_steps(result: Result) -> str:
    gamma = result.figures.gamma_of_steps
    return NONE if gamma is None else f"{gamma:.2g}"


def _cosine(result: Result) -> str:
    figures = result.figures
    if figures.policy is None or figures.product is None:
        return NONE
    if not figures.product.interval().excludes_zero:
        return NOT_TOLD
    signals = figures.policy.signal, figures.cross_entropy.signal
    if not all(one.interval().excludes_zero for one in signals):
        return "positive" if figures.product.value > 0 else "negative"
    return f"{cosine(*signals, figures.product):+.2f}"


def _spread(result: Result) -> str:
    found = result.figures.spread
    if found is None:
        return NONE
    # An estimate from a few contexts with nearly all of the variance may even be above 1.
    told = found.half_width < found.mean
    return f"{found.mean:.0%} ± {found.half_width:.0%}" if told else NOT_TOLD


def _agreement(name: str, result: Result) -> str:
    found = (result.figures.ranks or {}).get(name)
    return NONE if found is None else f"{found.mean:+.2f} ± {found.half_width:.2f}"


def _steps(result: Result) -> str:
    return _run(result, lambda run: f"{run.steps:,.0f}")


def _tflop(result: Result) -> str:
    return _run(result, lambda run: f"{run.flop / 1e12:,.3g}")


def _hours(result: Result) -> str:
    return _run(result, lambda run: f"{run.hours:,.2g}")


def _run(result: Result, text: Callable[[Run], str]) -> str:
    if not result.runs or not isfinite(result.runs[0].flop):
        return NONE
    run = result.runs[0]
    return f"{NOT_TOLD}, ≥ {text(run)}" if run.at_least else text(run)
