"""Signal ÷ noise of the policy gradient at equal FLOPs, for the recipes' default and for variants.

    python -m tests.benchmarks.signal train programs code_small      their small models
    python -m tests.benchmarks.signal measure programs
    python -m tests.benchmarks.signal measure code --documents 16 --only "moving_average"
    python -m tests.benchmarks.signal table                          docs/benchmarks/signal.md

`programs`: completions of tiny programs by a model of 1.6 M parameters that was trained on them
from random weights; low entropy. `code_small`: raw Python code with such a model of 1.9 M
parameters. `code`: raw Python code with the embedded model. The measurement is that of `ebft
noise`: every variant gets the same documents and, for the same sampler and n, the same rollouts.
Parts with state are fitted to other documents before, as by earlier steps.

Variants with the default's expected gradient are compared by noise × FLOPs of a document alone,
which is known better than the signal. Whitened features have another one: they are compared only
if both signals are told from zero.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from shlex import quote
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ebft.config.load import load_recipe
from ebft.data.python_files import PythonFiles
from ebft.data.tiny_programs.source import TinyPrograms
from ebft.diagnosis.alternatives import Alternative
from ebft.diagnosis.run import Result, diagnose
from ebft.files import write_whole
from ebft.scoring.pairs import PairStatistic
from tests.benchmarks.machine import ROOT, commit
from tests.benchmarks.signal_table import page

PAGE = ROOT / "docs" / "benchmarks" / "signal.md"
RUNS = ROOT / "runs" / "signal"
STEP = 64
"""Documents of a step."""


@dataclass(frozen=True)
class World:
    """A model on a kind of documents: a recipe, and what differs in it."""

    recipe: str
    overrides: tuple[str, ...]
    warm_up: int
    """Documents that parts with state are fitted to."""


@dataclass(frozen=True)
class Training:
    """How the small model of a world is trained by SFT: the recipe, and what differs in it."""

    recipe: str
    vocabulary: int
    steps: int
    overrides: tuple[str, ...]


TRAININGS = {
    "programs": Training(
        "sft_tiny_programs.yaml", 512, 400,
        ("data.train=20000", "training.documents_per_step=64", "training.micro_batch=64"),
    ),
    "code_small": Training(
        "sft_full.yaml", 2048, 300, ("training.documents_per_step=16", "training.micro_batch=16")
    ),
}  # fmt: skip
TRAINED = {
    name: f"model.path={RUNS / name / 'checkpoints' / f'step-{it.steps:06d}'}"
    for name, it in TRAININGS.items()
}
WORLDS = {
    "programs": World("ebft_tiny_programs.yaml", (TRAINED["programs"], "data.seed=77"), 640),
    "code_small": World("ebft_full.yaml", (TRAINED["code_small"], "plan.stride=64"), 96),
    "code": World("ebft_full.yaml", ("plan.stride=64", "training.micro_batch=1"), 64),
}
WHITENED = "transforms=[{_component_: whiten_running, refresh_every: 1, decay: null}]"
ARITHMETIC = "sampler={_component_: arithmetic, n: 8, together: 4}"
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "default: leave_one_out, n 4": (),
    "leave_one_out, n 2": ("sampler.n=2",),
    "leave_one_out, n 8": ("sampler.n=8",),
    "leave_one_out, n 16": ("sampler.n=16",),
    "none, n 4": ("baseline=none",),
    "moving_average, n 4": ("baseline=moving_average",),
    "moving_average, n 8": ("baseline=moving_average", "sampler.n=8"),
    "shrinkage ½, n 4": ("baseline=shrunk",),
    "independent halves, n 8": ("baseline=across_halves", "sampler.n=8"),
    "arithmetic halves, n 8": ("baseline=across_halves", ARITHMETIC),
    "whiten_running, n 4": (WHITENED,),
}


def measure(name: str, documents: int, only: Sequence[str]) -> dict[str, Any]:
    """Measures variants, those whose names begin with one of `only` if there are any."""
    world = WORLDS[name]
    common = [
        *world.overrides, f"training.documents_per_step={STEP}", f"output_dir={RUNS / 'noise'}",
        "plugins=[tests.benchmarks.signal_parts]", "evaluation.evaluators=[]",
    ]  # fmt: skip
    alternatives = [
        Alternative(
            label, None, load_recipe(ROOT / "recipes" / world.recipe, [*common, *own]).options
        )
        for label, own in VARIANTS.items()
        if not only or label.startswith(("default", *only))
    ]
    found = diagnose(alternatives, documents=documents, effect=0.02, warm_up=world.warm_up)
    quiet = quiet_documents(found.results)
    command = " ".join(["python -m tests.benchmarks.signal", *map(quote, sys.argv[1:])])
    return {
        "world": name, "documents": found.documents, "texts": found.clusters,
        "measured": [f"`{command}`, commit {commit()}"],
        "rows": [row(result, found.results[0], quiet) for result in found.results],
    }  # fmt: skip


def merged(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Variants of two measurements of the same documents; new figures replace earlier ones."""
    if before.get("documents") != new["documents"]:
        return new
    rows = {row["variant"]: row for row in [*before["rows"], *new["rows"]]}
    measured = list(dict.fromkeys([*before["measured"], *new["measured"]]))
    return new | {"rows": list(rows.values()), "measured": measured}


def row(result: Result, default: Result, quiet: Tensor) -> dict[str, Any]:
    """The figures of a variant."""
    ours, theirs = result.figures.policy, default.figures.policy
    assert ours is not None
    assert theirs is not None
    options, usual = result.alternative.options, default.alternative.options
    cost = flop(result) / flop(default)
    found = {
        "variant": result.alternative.label,
        "flop": cost,
        "noise_scale": ours.noise_scale().value if ours.signal.interval().excludes_zero else None,
    }
    if options.transforms == usual.transforms:
        found |= {
            "noise": ours.noise.value / theirs.noise.value,
            "gain": gain(theirs.noise, ours.noise, cost),
            "quiet": gain(only(theirs.noise, quiet), only(ours.noise, quiet), cost),
        }
    return found


def flop(result: Result) -> float:
    """FLOPs of a document."""
    options, rollouts = result.alternative.options, result.figures.rollouts
    assert rollouts is not None
    assert options.sampler is not None
    return rollouts.cost(options.sampler.n)


def gain(default: PairStatistic, ours: PairStatistic, cost: float) -> tuple[float, float, float]:
    """default / (cost · ours), with the interval of its logarithm.

    Unlike `ratio`, it takes for granted that noise is positive: a few documents may have most of
    it, and then it is hardly told from zero. The logarithm of the ratio changes by x/E[x] − y/E[y]
    to first order.
    """
    value = default.value / (cost * ours.value)
    change = (1 / default.value) * default - (1 / ours.value) * ours
    factor = exp(change.interval().half_width)
    return value, value / factor, value * factor


def only(statistic: PairStatistic, documents: Tensor) -> PairStatistic:
    """The statistic of some documents."""
    clusters = None if statistic.clusters is None else statistic.clusters[documents]
    pairs = statistic.pairs[documents][:, documents]
    return PairStatistic(statistic.own[documents], pairs, clusters)


def quiet_documents(results: Sequence[Result]) -> Tensor:
    """The numbers of all documents but the 2 % with the largest shares of the variants' noise."""
    noise = [one.figures.policy.noise.own for one in results if one.figures.policy is not None]
    share = torch.stack([own / own.sum() for own in noise]).mean(0)
    return share.argsort()[: len(share) - max(1, len(share) // 50)].sort().values


def train(name: str) -> None:
    """Makes a model of random weights with a tokenizer for its texts, and trains it by SFT."""
    training, folder = TRAININGS[name], RUNS / f"{name}_random"
    if name == "programs":
        examples = TinyPrograms(train=4000, held_out=1, out_of_distribution=1)().train
    else:
        examples = PythonFiles(held_out=0.1)().train[:400]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=training.vocabulary, special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator((e.prompt + e.completion for e in examples), trainer)
    config = LlamaConfig(
        vocab_size=training.vocabulary, hidden_size=160, intermediate_size=432,
        num_hidden_layers=5, num_attention_heads=5, num_key_value_heads=5,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"
    ).save_pretrained(folder)
    command = [
        sys.executable, "-m", "ebft.cli.main", "run", str(ROOT / "recipes" / training.recipe),
        f"model.path={folder}", f"output_dir={RUNS / name}", "optimizer.lr=2e-3",
        f"training.steps={training.steps}", "lr_scheduler.num_warmup_steps=20",
        f"lr_scheduler.num_training_steps={training.steps + 20}",
        f"checkpoint.every={training.steps}", *training.overrides,
    ]  # fmt: skip
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "measure", "table"])
    parser.add_argument("worlds", nargs="*", default=[*WORLDS])
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--only", nargs="*", default=[], help="how variants' names begin")
    options = parser.parse_args()
    for name in options.worlds or WORLDS:
        if options.what == "train" and name in TRAININGS:
            train(name)
        elif options.what == "measure":
            file = RUNS / f"{name}.json"
            before = json.loads(file.read_text()) if file.exists() else {}
            found = merged(before, measure(name, options.documents, options.only))
            write_whole(file, json.dumps(found, indent=1, ensure_ascii=False))
    if options.what == "table":
        files = [RUNS / f"{name}.json" for name in options.worlds]
        write_whole(PAGE, page([json.loads(it.read_text()) for it in files if it.exists()]))


if __name__ == "__main__":
    main()
