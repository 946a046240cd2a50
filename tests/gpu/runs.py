"""Parts that start runs: exact resume, running out of memory, and the estimate of memory."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from ebft.cli.main import main
from ebft.config.load import load_recipe
from ebft.runs.estimate import StepEstimate
from ebft.testing import tiny_tokenizer
from ebft.testing.tiny import LETTERS
from ebft.training import losses
from tests.benchmarks import memory
from tests.benchmarks.machine import ROOT
from tests.benchmarks.mfu import COMMON, SHAPES
from tests.gpu.report import Place, Report
from tests.resume.common import checkpoint, differences

RECIPE = ROOT / "recipes" / "ebft_full.yaml"
STATEFUL = ["transforms=[{_component_: whiten_running}]", "baseline=moving_average"]
LETTERED = {
    "vocab_size": 3 + len(LETTERS), "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.1, "tie_word_embeddings": True,
    "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
SMALL = LlamaConfig(hidden_size=256, intermediate_size=512, **LETTERED)
TINY = LlamaConfig(hidden_size=32, intermediate_size=48, **LETTERED)


def write_random(config, folder: Path) -> Path:
    """Writes a model with random weights, and a tokenizer of letters."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_texts(folder: Path, *, files: int, letters: int) -> Path:
    """Writes .py files of random letters."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    for number in range(files):
        text = "".join(rng.choice(LETTERS) for _ in range(letters))
        (folder / f"file{number}.py").write_text(text)
    return folder


def overrides(model: Path, texts: Path, *, length: int) -> list[str]:
    return [
        f"model.path={model}", f"data.path={texts}", "data.held_out=0.25",
        f"documents.length={length}", "plan.start=8", "plan.stride=8",
        "training.documents_per_step=8", "evaluation.evaluators=[]", "lr_scheduler=null",
        "training.show_rollouts_every=1000",
    ]  # fmt: skip


def run(*options: str, device: str) -> None:
    """`ebft run` in this process. Raises `RuntimeError` if it does not end well."""
    status = main(["run", str(RECIPE), f"model.device={device}", *options])
    if status:
        raise RuntimeError(f"ebft run ended with {status}")
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def peak(folder: Path) -> float:
    """Bytes: the peak that a run logs."""
    steps = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return max(float(step["memory_gib"]) for step in steps) * 2**30


def resume(report: Report, place: Place) -> None:
    """Part `resume`: four steps, four again, and two that are resumed to four."""
    with TemporaryDirectory() as name, deterministic():
        folder = Path(name)
        length = place.sized(512, 40)
        texts = write_texts(folder / "texts", files=24, letters=4 * length)
        model = write_random(place.sized(SMALL, TINY), folder / "model")
        options = [
            *overrides(model, texts, length=length),
            *STATEFUL, f"model.precision={place.sized('bfloat16', 'float32')}",
            "training.micro_batch=2", "checkpoint.every=2",
        ]  # fmt: skip
        for which in ("whole", "again"):
            run(*options, "training.steps=4", f"output_dir={folder / which}", device=place.device)
        halves = [*options, f"output_dir={folder / 'halves'}"]
        run(*halves, "training.steps=2", device=place.device)
        run(*halves, "training.steps=4", "checkpoint.resume=auto", device=place.device)
        whole = checkpoint(folder / "whole", 4)
        for which in ("again", "halves"):
            found = differences(whole, checkpoint(folder / which, 4))
            report.check(f"tensors that differ: {which}", len(found), at_most=0)


def halving(report: Report, place: Place) -> None:
    """Part `halving`: 8 documents at a time, in memory that has room for 4."""
    with TemporaryDirectory() as name, deterministic():
        folder = Path(name)
        length = place.sized(1024, 40)
        texts = write_texts(folder / "texts", files=24, letters=4 * length)
        model = write_random(place.sized(SMALL, TINY), folder / "model")
        options = [
            *overrides(model, texts, length=length),
            *STATEFUL, "training.steps=2", "checkpoint.every=2",
        ]  # fmt: skip

        def train(which: str, micro_batch: int) -> None:
            if place.device != "cpu":
                torch.cuda.reset_peak_memory_stats()
            run(*options, f"training.micro_batch={micro_batch}", f"output_dir={folder / which}",
                device=place.device)  # fmt: skip

        train("four", 4)
        train("eight", 8)
        needed = [peak(folder / which) for which in ("four", "eight")]
        for which, size in zip(("4", "8"), needed, strict=True):
            report.figure(f"peak with {which} at a time", size / 2**30, "GiB")
        with room_for_four(place, sum(needed) / 2):
            train("halved", 8)
        found = differences(checkpoint(folder / "four", 2), checkpoint(folder / "halved", 2))
        report.check("tensors that differ from 4 at a time", len(found), at_most=0)
        limit = place.sized(sum(needed) / 2 / 2**30, float("inf"))
        report.check("peak when halved", peak(folder / "halved") / 2**30, at_most=limit, unit="GiB")


@contextmanager
def deterministic() -> Iterator[None]:
    """Kernels that give the same bits every time, where torch has them."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warns)


@contextmanager
def room_for_four(place: Place, size: float) -> Iterator[None]:
    """On a GPU, torch gets so many bytes; on a CPU, forwards of more documents fail."""
    if place.device != "cpu":
        total = torch.cuda.get_device_properties(place.on).total_memory
        torch.cuda.set_per_process_memory_fraction(size / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    forward = losses.tree_log_probs_and_entropies

    def limited(policy, rollouts, **how):
        if len(rollouts.contexts.documents) > 4:
            raise torch.OutOfMemoryError("more than 4 documents at a time")
        return forward(policy, rollouts, **how)

    with patch.object(losses, "tree_log_probs_and_entropies", limited):
        yield


def estimate(report: Report, place: Place) -> None:
    """Part `memory`: what `--dry-run` estimates, and what torch allocates."""
    shape = place.sized("qwen2.5-0.5b", "tiny")
    length, micro_batch = place.sized(1024, 40), place.sized(2, 1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = write_random(Qwen2Config(**SHAPES[shape], **COMMON), folder / "model")
        texts = write_texts(folder / "texts", files=24, letters=4 * length)
        shared = [
            *overrides(model, texts, length=length), "training.documents_per_step=2",
            f"model.precision={place.sized('bfloat16', 'float32')}",
        ]  # fmt: skip
        for kind in memory.KINDS:
            options = [*memory.overrides(micro_batch, kind), *shared]
            if place.rehearse and "rank" in " ".join(options):
                options.append("model.lora.rank=4")
            recipe = load_recipe(RECIPE, [*options, f"model.device={place.device}"]).options
            expected = StepEstimate.of(recipe).memory(micro_batch).total
            found = memory.measure(options, place.device)
            report.figure(f"{kind}: peak", found / 2**30, "GiB")
            report.check(f"{kind}: estimate over peak", expected / found, at_least=0.85,
                         at_most=1.15, only_on_gpu=True)  # fmt: skip
