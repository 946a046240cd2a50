"""Bias and variance of the policy gradient with each baseline, against n.

    python -m tests.benchmarks.baselines        writes docs/images/baselines.png

A categorical policy over 12 outcomes with random features of norm 1, away from its ground truth,
so that the true gradient is known; 100,000 contexts for each n. Bias is the distance of the mean
estimate from the true gradient, variance the trace of an estimate's covariance, both relative to
the true gradient's norm (squared).
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor
from tqdm import tqdm

from ebft.baselines.group_mean import GroupMean
from ebft.baselines.group_normalised import GroupNormalised
from ebft.baselines.leave_one_out import LeaveOneOut
from ebft.baselines.moving_average import MovingAverageBaseline
from ebft.baselines.none import NoBaseline
from ebft.baselines.plain_rloo import PlainRloo
from ebft.parts.interfaces import Baseline
from ebft.rewards.feature_matching import FeatureMatching
from ebft.rollout.records import Features

OUTCOMES, DIMENSIONS, CONTEXTS = 12, 6, 100_000
COUNTS = (2, 3, 4, 6, 8, 12, 16)
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "baselines.png"
COLORS = {
    "none": "#8a94a0",
    "moving_average": "#5aa469",
    "leave_one_out": "#1f5fa8",
    "plain_rloo": "#c2571a",
    "group_mean": "#d9a441",
    "group_normalised": "#8c4a9e",
}


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, distribution of the truth, features."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(OUTCOMES, generator=rng, dtype=torch.float64)
    truth = torch.randn(OUTCOMES, generator=rng, dtype=torch.float64).softmax(0)
    phi = torch.randn(OUTCOMES, DIMENSIONS, generator=rng, dtype=torch.float64)
    return logits, truth, torch.nn.functional.normalize(phi, dim=1)


def true_gradient(logits: Tensor, truth: Tensor, phi: Tensor) -> Tensor:
    """∇L_CFM in the logits."""
    leaf = logits.clone().requires_grad_()
    p = leaf.softmax(0)
    loss = (truth * (p @ phi - phi).square().sum(1)).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def bias_and_variance(name: str, n: int) -> tuple[float, float]:
    """Relative bias and variance of the estimate from one context."""
    logits, truth, phi = problem()
    rng = torch.Generator().manual_seed(n)
    p = logits.softmax(0)
    samples = torch.multinomial(p.expand(CONTEXTS, -1), n, replacement=True, generator=rng)
    reference = torch.multinomial(truth, CONTEXTS, replacement=True, generator=rng)
    terms = FeatureMatching()(None, Features(phi[samples], phi[reference][:, None]))
    advantages = baseline(name, float(terms.reward().mean()))(terms)
    # ∇ log p of an outcome in the logits: its one-hot − p.
    scores = torch.eye(OUTCOMES, dtype=torch.float64)[samples] - p
    estimates = -(advantages[..., None] * scores).mean(1)
    exact = true_gradient(logits, truth, phi)
    scale = exact.norm()
    bias = (estimates.mean(0) - exact).norm() / scale
    return float(bias), float(estimates.var(0).sum() / scale**2)


def baseline(name: str, mean_reward: float) -> Baseline:
    if name == "moving_average":  # as it is after many steps
        warm = MovingAverageBaseline(decay=0.9)
        warm.weighted, warm.weight = mean_reward, 1.0
        return warm
    parts = {
        "none": NoBaseline(),
        "leave_one_out": LeaveOneOut(),
        "plain_rloo": PlainRloo(),
        "group_mean": GroupMean(),
        "group_normalised": GroupNormalised(),
    }
    return parts[name]


def main() -> None:
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    print(f"{'':18}" + "".join(f"{f'n = {n}':>16}" for n in COUNTS))
    for name, color in tqdm(COLORS.items()):
        results = [bias_and_variance(name, n) for n in COUNTS]
        cells = "".join(f"{f'{b:.3f} / {v:.1f}':>16}" for b, v in results)
        tqdm.write(f"{name:18}{cells}")
        bias, variance = zip(*results, strict=True)
        style = {"color": color, "marker": "o", "markersize": 3.5, "linewidth": 1.6, "label": name}
        left.plot(COUNTS, bias, **style)
        right.plot(COUNTS, variance, **style)
    left.set_title("bias, relative to ‖∇L‖", loc="left", fontsize=11, fontweight="bold")
    right.set_title("variance of one context, to ‖∇L‖²", loc="left", fontsize=11, fontweight="bold")
    right.set_yscale("log")
    right.set_yticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    right.yaxis.set_minor_locator(NullLocator())
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks([2, 4, 8, 16], ["2", "4", "8", "16"])
        axes.set_xlabel("n, rollouts a context")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e9ed")
        axes.set_axisbelow(True)
    right.legend(fontsize=8, frameon=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
