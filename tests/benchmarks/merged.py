"""Tokens of a step through the networks, of all rollouts and of their distinct prefixes.

    python -m tests.benchmarks.merged recipes/ebft_full.yaml --n 4,16
    python -m tests.benchmarks.merged recipes/lab/ebft.yaml --n 4,8,16,32 feature_map.depths=[0.5]

The policy of the recipe samples after the documents of one step, and nothing is trained. *all* has
every token of every rollout, padded to the longest; *computed* has each prefix once, none that the
document has, and nothing after a rollout's end (`ebft.rollout.merge`). Products are most of a
step's work, and need time in proportion to tokens; attention is that of all tokens. FLOPs are those
of the layers' products: twice the weights for each token of sampling and of the layers that
features read, and three times that for training. docs/benchmarks/speed.md has figures.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from ebft.config.load import load_recipe
from ebft.diagnosis.subject import Subject
from ebft.rollout.merge import alike, grow_merged
from ebft.rollout.records import Rollouts
from ebft.rollout.tree import grow
from ebft.runs.setup import depth_of
from tests.benchmarks.machine import commit


class Tokens(NamedTuple):
    """Tokens that a phase of a step forwards."""

    sampling: int
    features: int
    training: int

    def work(self, depth: float) -> float:
        """Forwards of a token through all layers that cost as much."""
        return self.sampling + depth * self.features + 3 * self.training


def of_all(rollouts: Rollouts) -> Tokens:
    """Tokens if nothing is left out."""
    longest = rollouts.longest
    features = grow(rollouts.without_tails(), steps=longest).tokens.numel()
    training = grow(rollouts, steps=longest - 1).tokens.numel()
    read = int(rollouts.contexts.ending_after(0).lengths.sum())
    branches = rollouts.tokens[..., 0].numel()
    return Tokens(read + branches * (longest - 1), features, training)


def computed(rollouts: Rollouts) -> Tokens:
    """Tokens of the merged trees, and of the branches that sampling merges."""
    longest = rollouts.longest
    features = grow_merged(rollouts.without_tails(), steps=longest).tokens.numel()
    training = grow_merged(rollouts, steps=longest - 1).tokens.numel()
    read = int(rollouts.contexts.ending_after(0).lengths.sum())
    return Tokens(read + sum(map(len, sampled_together(rollouts))), features, training)


def sampled_together(rollouts: Rollouts) -> Iterator[torch.Tensor]:
    """The branches that are forwarded for each token, as `hf_tree` merges them."""
    P, n, _ = rollouts.tokens.shape
    prefix = torch.arange(P * n) // n
    for t in range(1, rollouts.longest):
        active = rollouts.mask[..., t].flatten()
        prefix, kept = alike(prefix, rollouts.tokens[..., t - 1].flatten(), active)
        yield kept


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--n", default="4,8,16")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_intermixed_args()
    options = load_recipe(arguments.recipe, arguments.overrides).options
    count = options.training.documents_per_step
    subject = Subject.load(options, count, others=0, depth=depth_of(options))
    contexts = options.plan.build(subject.resources)(subject.documents)
    depth = 0.0 if options.feature_map is None else options.feature_map.base_depth()
    print(f"{commit()}: {len(contexts)} contexts of {len(contexts.documents)} documents")
    columns = "".join(f"{name:>20}" for name in ("sampling", "features", "training", "work"))
    print(f"  n    rollouts{columns}")
    for n in map(int, arguments.n.split(",")):
        sampler = options.sampler.model_copy(update={"n": n}).build(subject.resources)
        rollouts = sampler(contexts, step=0)
        every, once = of_all(rollouts), computed(rollouts)
        pairs = "".join(f"{f'{b:,} of {a:,}':>20}" for a, b in zip(every, once, strict=True))
        ours, theirs = once.work(depth), every.work(depth)
        print(
            f"{n:3} {int(rollouts.mask.sum()):11,}{pairs}{f'{ours:,.0f} of {theirs:,.0f}':>20}",
            end="",
        )
        print(f"{ours / theirs:6.2f}")


if __name__ == "__main__":
    main()
