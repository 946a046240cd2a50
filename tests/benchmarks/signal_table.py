"""The table of `tests.benchmarks.signal`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from ebft.scoring.pairs import PairStatistic, Ratio, ratio
from tests.benchmarks.machine import commit
from tests.benchmarks.signal_variants import Variant

DEFAULT = "leave_one_out, n 4"
NOTE = """\
`python -m tests.benchmarks.signal` says how this is measured; `leave_one_out, n 4` is the default of the
recipes.

- *FLOPs* and *noise* of one document, relative to the default's. Noise is tr Cov(g) of a document's policy
  gradient g. That of `whiten_running` is on another scale.
- *Gain*: how many times more signal ÷ noise than the default at equal FLOPs, with a 95 % interval over documents
  (texts of one file count together). All variants but `whiten_running` have the same expected gradient, so it is
  the ratio of noise × FLOPs. For `whiten_running` it needs the signal, |E g|², of both, which has to be told
  from zero.
- *Loudest 2 %*: their share of E|g|². These are the same documents for all variants. If they have most of it,
  the gain is not told, and the last column is that of all other documents.

`leave_one_out`, `predicted_features`, `none` and `whiten_running` are parts of ebft; *mean of earlier steps* is
what `moving_average` approaches. The others were tried and are not kept: *shrinkage* (that share of the mean of
earlier steps, the rest leave-one-out) has no gain over that mean, and *halves* (pairs and baselines
between two halves of the rollouts, which arithmetic sampling needs) lose more pairs than spreading the rollouts
out saves. *Last token summed over k*: over its k likeliest values instead of the sampled one alone, which costs k
frozen tokens a rollout."""


class Record(TypedDict):
    """What is measured of a document, by variant."""

    name: str
    cluster: str
    squared: dict[str, float]
    sketch: dict[str, Tensor]
    flops: dict[str, float]
    nats: float


def read(folder: Path) -> list[Record]:
    files = sorted(folder.glob("*.pt"), key=lambda file: int(file.stem))
    return [torch.load(file) for file in files]


class Measured:
    """A variant's signal and noise over documents."""

    def __init__(self, records: list[Record], name: str, clusters: Tensor) -> None:
        sketches = torch.stack([record["sketch"][name] for record in records]).double()
        self.squared = torch.tensor([r["squared"][name] for r in records], dtype=torch.float64)
        self.signal = PairStatistic.of_pairs(sketches @ sketches.mT, clusters)
        self.energy = PairStatistic.of_documents(self.squared, clusters)
        self.noise = self.energy - self.signal
        self.flops = sum(record["flops"][name] for record in records) / len(records)

    def without(self, loudest: Tensor) -> PairStatistic:
        """E|g|² of the other documents."""
        return PairStatistic.of_documents(self.squared.where(~loudest, 0), self.energy.clusters)


def find_loudest(of_variants: Sequence[Measured]) -> Tensor:
    """True for 2 % of the documents: those with the largest part in the variants' energies."""
    shares = torch.stack([one.squared / one.squared.sum() for one in of_variants]).mean(0)
    return shares >= shares.sort(descending=True).values[max(1, len(shares) // 50) - 1]


def gain(of: Measured, over: Measured, *, same: bool) -> Ratio | None:
    """How many times more signal ÷ noise than the default at equal FLOPs; None if not told."""
    if same:
        return ratio(over.flops * over.noise, of.flops * of.noise)
    ours, theirs = ratio(of.signal, of.noise), ratio(over.signal, over.noise)
    if not (ours.low > 0 and theirs.low > 0):
        return None
    factor = over.flops / of.flops
    return Ratio(
        factor * ours.value / theirs.value, factor * ours.low / theirs.high,
        factor * ours.high / theirs.low,
    )  # fmt: skip


def rows(records: list[Record], variants: Mapping[str, Variant]) -> list[str]:
    names = {r["cluster"] or r["name"]: None for r in records}
    numbers = {name: i for i, name in enumerate(names)}
    clusters = torch.tensor([numbers[r["cluster"] or r["name"]] for r in records])
    measured = {
        name: Measured(records, name, clusters)
        for name in variants
        if name in records[0]["squared"]
    }
    default = measured[DEFAULT]
    loudest = find_loudest([one for name, one in measured.items() if variants[name].same])
    found = []
    for name, one in measured.items():
        same, cheaper = variants[name].same, default.flops / one.flops
        told, quiet = gain(one, default, same=same), None
        if same:
            quiet = ratio(cheaper * default.without(loudest), one.without(loudest))
        found.append(
            f"| {name} | {1 / cheaper:.2f} | {one.noise.value / default.noise.value:.3g} | "
            f"{float(one.squared[loudest].sum() / one.squared.sum()):.0%} | {shown(told)} | "
            f"{shown(quiet)} |"
        )
    return found


def shown(gain: Ratio | None) -> str:
    return "not told" if gain is None else f"{gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]"


def page(folders: Mapping[str, Path], variants: Mapping[str, Variant]) -> str:
    today = f"{date.today()}, commit {commit()}."
    lines = ["# Signal for the same compute", "", NOTE, "", today, ""]
    for world, folder in folders.items():
        records = read(folder)
        nats = sum(record["nats"] for record in records) / len(records)
        lines += [
            f"## {world}: {len(records)} documents, {nats:.2f} nats a token",
            "",
            "| variant | FLOPs | noise | loudest 2 % | gain at equal FLOPs | without these 2 % |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows(records, variants),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"
