"""Time and MFU of a step's phases on a GPU, at a model's shape with random weights.

    python -m tests.benchmarks.mfu                                      Qwen2.5-1.5B, bfloat16, flex
    python -m tests.benchmarks.mfu --attention tree --documents 8       and so on: --help

MFU is what the cost model counts (`ebft.models.cost`: no recomputation, no padding) over what the
GPU could compute in that time. Each time is the fastest of `REPEATS` after one to warm up and
compile.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, Qwen2Config

from ebft.features.hidden_states import HiddenStates
from ebft.models.cost import DocumentTree, flops
from ebft.models.load import ATTENTION
from ebft.models.shape import ModelShape
from ebft.parts.part import Resources
from ebft.plans.strided import Strided
from ebft.rollout.records import Rollouts
from ebft.runs.setup import PRECISION
from ebft.samplers.hf_tree import HfTree
from ebft.testing import tiny_documents
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.benchmarks.machine import hardware, wait_for
from tests.benchmarks.peak import peak_memory
from tests.tiny import at_a_time, trained_on

REPEATS, STRIDE, G, N, DEPTHS = 3, 8, 8, 4, (0.25, 0.5, 0.75)
COMMON = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "tie_word_embeddings": True}
SHAPES = {
    "qwen2.5-0.5b": {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151_936,
    },
    "qwen2.5-1.5b": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151_936,
    },
    "tiny": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured, and on what; `peak` is in TFLOP/s."""

    model: str = "qwen2.5-1.5b"
    attention: str = "flex"
    precision: str = "bfloat16"
    device: str = "cuda"
    length: int = 1024
    documents: int = 16
    micro_batch: int = 2
    gradient_checkpointing: bool = False
    peak: float = 989.0


class Phase(NamedTuple):
    """A phase of a step: its time, what the cost model counts, the share of what the GPU could
    compute in that time, and the peak above what is there before."""

    seconds: float
    flop: float
    mfu: float
    peak_bytes: int


class Step:
    """The phases of one step, on random documents."""

    def __init__(self, arguments: Setting) -> None:
        config = Qwen2Config(**SHAPES[arguments.model], **COMMON)
        self.arguments, self.shape = arguments, ModelShape.of(config)
        self.precision, device = PRECISION[arguments.precision], torch.device(arguments.device)
        with device:
            self.policy, frozen = (
                AutoModelForCausalLM.from_config(
                    config, attn_implementation=ATTENTION[arguments.attention]
                ).eval()
                for _ in range(2)
            )
        frozen = frozen.to(self.precision).requires_grad_(False)
        self.resources = Resources(
            policy=self.policy, tokenizer=None, load_base=lambda: frozen, device=device,
            precision=self.precision, seed=0,
        )  # fmt: skip
        documents = tiny_documents(
            [arguments.length] * arguments.documents, vocabulary=config.vocab_size
        )
        plan = Strided(start=STRIDE, stride=STRIDE, rollout_length=G)
        self.contexts = at_a_time(arguments.micro_batch, plan(documents).to(device))
        self.sampler = HfTree(n=N).build(self.resources)
        self.feature_map = HiddenStates(depths=DEPTHS).build(self.resources)
        self.advantages = torch.randn(len(self.contexts), N, device=device)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=1e-6, fused=True)
        self.rollouts: Rollouts = self.sampler(self.contexts, step=0)

    def sampling(self) -> None:
        self.sampler(self.contexts, step=1)

    def features(self) -> None:
        self.feature_map(self.rollouts)

    def training(self) -> None:
        accumulate_gradients(
            self.policy,
            *trained_on(self.rollouts, self.advantages, micro_batch=self.arguments.micro_batch),
            ObjectiveOptions(gamma=1.0),
            precision=self.precision,
            gradient_checkpointing=self.arguments.gradient_checkpointing, step=0,
        )  # fmt: skip
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def flops(self) -> dict[str, float]:
        """Of all documents, by phase."""
        first = self.contexts.anchor[self.contexts.row == 0].tolist()
        tree = DocumentTree(self.arguments.length, first, N, G)
        count, documents = flops(self.shape, tree, depth=max(DEPTHS)), self.arguments.documents
        return {
            "sampling": documents * count.sampling,
            "features": documents * count.features,
            "training": documents * count.training,
        }


def fastest(work: Callable[[], None], device: str) -> float:
    """Seconds of the fastest of `REPEATS` runs after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        wait_for(device)
        start = perf_counter()
        work()
        wait_for(device)
        times.append(perf_counter() - start)
    return min(times[1:])


PHASES = ("sampling", "features", "training")


def measure(step: Step, phase: str) -> Phase:
    """A phase of the step, after one run to warm up and compile."""
    setting, run = step.arguments, getattr(step, phase)
    seconds = fastest(run, setting.device)
    work = step.flops()[phase]
    peak = peak_memory(run, setting.device)
    return Phase(seconds, work, mfu_of(work, seconds, setting), peak)


def mfu_of(flop: float, seconds: float, setting: Setting) -> float:
    return flop / seconds / (setting.peak * 1e12)


def whole(phases: Sequence[Phase], setting: Setting) -> Phase:
    """All phases together."""
    seconds, work = sum(p.seconds for p in phases), sum(p.flop for p in phases)
    peak = max(p.peak_bytes for p in phases)
    return Phase(seconds, work, mfu_of(work, seconds, setting), peak)


def top_operators(work: Callable[[], None], device: str, rows: int = 15) -> str:
    """torch's profiler's table of one run: where the device's own time goes."""
    activities = [ProfilerActivity.CPU]
    if device != "cpu":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as found:
        work()
        wait_for(device)
    by = "self_cpu_time_total" if device == "cpu" else "self_cuda_time_total"
    return str(found.key_averages().table(sort_by=by, row_limit=rows, max_name_column_width=60))


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="qwen2.5-1.5b")
    parser.add_argument("--attention", choices=ATTENTION, default="flex")
    parser.add_argument("--precision", choices=PRECISION, default="bfloat16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a document")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of the GPU (H100: 989)")
    setting = Setting(**vars(parser.parse_args(argv)))
    step = Step(setting)
    print(f"{setting.model}, {setting.attention}, {setting.precision}, {hardware(setting.device)}")
    print(f"{'':12}{'seconds':>10}{'TFLOP':>10}{'MFU':>8}{'peak, GiB':>12}")
    found = {}
    for phase in PHASES:
        found[phase] = measure(step, phase)
        print_row(phase, found[phase])
    print_row("whole step", whole(list(found.values()), setting))


def print_row(name: str, phase: Phase) -> None:
    seconds, flop, mfu, peak = phase
    print(f"{name:12}{seconds:>10.3f}{flop / 1e12:>10.2f}{mfu:>8.1%}{peak / 2**30:>12.1f}")


if __name__ == "__main__":
    main()
