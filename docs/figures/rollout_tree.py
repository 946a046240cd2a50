"""Draws a document with its rollouts as a tree, from the geometry that ebft itself computes.

`python -m docs.figures.rollout_tree` writes docs/images/rollout_tree.png.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ebft.plans.strided import Strided
from ebft.rollout.records import Document, Rollouts
from ebft.rollout.tree import Tree, grow

S, N = 12, 2
PLAN = Strided(start=3, stride=3, rollout_length=3)
PICTURE = Path(__file__).parents[1] / "images" / "rollout_tree.png"
TRUNK, INK, FAINT, PAPER = "#1f3a5f", "#2b3440", "#9aa5b1", "#ffffff"
BRANCHES = ("#c2571a", "#5aa469", "#8c4a9e")
"""One colour an anchor."""


def example() -> tuple[Rollouts, Tree]:
    """A document of S tokens with N rollouts at each anchor. Which tokens they are is no matter."""
    contexts = PLAN([Document("example", torch.arange(S))])
    tokens = torch.zeros(len(contexts), N, PLAN.rollout_length, dtype=torch.long)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    rollouts = Rollouts(contexts, tokens, tokens.double(), mask, temperature=1.0)
    return rollouts, grow(rollouts, steps=rollouts.tokens.shape[-1])


def owners(tree: Tree) -> list[int | None]:
    """The context of each column, None for the trunk's."""
    owner: list[int | None] = [None] * tree.tokens.shape[1]
    for context, columns in enumerate(tree.rollout_at.flatten(1).tolist()):
        for column in columns:
            owner[column] = context
    return owner


def color(owner: int | None) -> str:
    """That of a context's rollouts, or the trunk's."""
    return TRUNK if owner is None else BRANCHES[owner]


def draw_tree(axes: Axes, rollouts: Rollouts, tree: Tree) -> None:
    """Each token at its position; branches below the trunk, below their anchors."""
    positions = tree.positions[0].tolist()
    for column in range(S):
        cell(axes, positions[column], 0, color(None), positions[column])
    level = 0
    for context in reversed(range(len(rollouts.contexts))):
        anchor = int(rollouts.contexts.anchor[context])
        for j in range(N):
            level -= 1
            for column in tree.rollout_at[context, j].tolist():
                cell(axes, positions[column], level, color(context), positions[column])
            axes.plot(
                [anchor - 1, anchor - 1, anchor - 0.42], [-0.42, level, level],
                color=color(context), linewidth=1.6, solid_capstyle="round", zorder=0,
            )  # fmt: skip
        axes.text(
            anchor + PLAN.rollout_length - 0.2, level + 0.5, f"context {context}, anchor {anchor}",
            color=color(context), fontsize=9, va="center",
        )  # fmt: skip
    axes.text(S - 0.2, 0, "document", color=TRUNK, fontsize=9, va="center")
    axes.set_xlim(-0.7, S + 2.6)
    axes.set_ylim(level - 0.7, 0.5)
    axes.set_aspect("equal", anchor="NW")
    axes.axis("off")


def cell(axes: Axes, x: float, y: float, face: str, position: int) -> None:
    """One token, with its position."""
    axes.add_patch(
        FancyBboxPatch(
            (x - 0.38, y - 0.38), 0.76, 0.76, boxstyle="round,pad=0,rounding_size=0.14",
            facecolor=face, edgecolor="none",
        )
    )  # fmt: skip
    axes.text(x, y - 0.02, str(position), color=PAPER, fontsize=9, ha="center", va="center")


def draw_mask(axes: Axes, tree: Tree) -> None:
    """Which column (key) each row (query) sees, coloured by whose key it is."""
    owner = owners(tree)
    sees = tree.mask.dense[0, 0]
    key = torch.tensor([0 if it is None else it + 1 for it in owner])
    shown = torch.where(sees, key + 1, 0)
    palette = ListedColormap(["#f3f5f7", TRUNK, *BRANCHES])
    T = len(owner)
    axes.pcolormesh(shown.flip(0), cmap=palette, vmin=0, vmax=4, edgecolors=PAPER, linewidth=0.7)
    for border in [S, *(int(first) for first in tree.rollout_at[:, :, 0].flatten())]:
        axes.axhline(T - border, color=FAINT, linewidth=0.6)
    axes.set_aspect("equal", anchor="N")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel("…sees these", fontsize=9, color=INK)
    axes.set_ylabel("this token…", fontsize=9, color=INK)


def main() -> None:
    """Writes the picture."""
    rollouts, tree = example()
    figure = Figure(figsize=(10.4, 4.6), layout="constrained", facecolor=PAPER)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    draw_tree(left, rollouts, tree)
    draw_mask(right, tree)
    for axes, title in ((left, "tokens with their positions"), (right, "who sees whom")):
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=160)


if __name__ == "__main__":
    main()
