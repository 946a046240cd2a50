"""Time and MFU of a step's phases on a GPU, at a model's shape with random weights.

    python -m tests.benchmarks.mfu                                      Qwen2.5-1.5B, bfloat16, flex
    python -m tests.benchmarks.mfu --attention tree --documents 8       and so on: --help

MFU is what the cost model counts (`ebft.runs.cost`: no recomputation, no padding) over what the GPU
could compute in that time. Each time is the fastest of `REPEATS` after one to warm up and compile.
"""

import argparse
from collections.abc import Callable, Sequence
from time import perf_counter

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from ebft.features.hidden_states import HiddenStates
from ebft.models.load import ATTENTION
from ebft.models.shape import ModelShape
from ebft.parts.part import Resources
from ebft.plans.strided import Strided
from ebft.rollout.records import Rollouts
from ebft.runs.cost import DocumentTree, flops
from ebft.runs.setup import PRECISION
from ebft.samplers.hf_tree import HfTree
from ebft.testing import tiny_documents
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.benchmarks.peak import peak_memory
from tests.tiny import at_a_time, trained_on

REPEATS, STRIDE, G, N, DEPTHS = 3, 8, 8, 4, (0.25, 0.5, 0.75)
COMMON = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "tie_word_embeddings": True}
SHAPES = {
    "qwen2.5-1.5b": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151_936,
    },
    "tiny": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
    },
}  # fmt: skip


class Step:
    """The phases of one step, on random documents."""

    def __init__(self, arguments: argparse.Namespace) -> None:
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
        start = perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return min(times[1:])


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
    arguments = parser.parse_args(argv)
    step = Step(arguments)
    counted, total = step.flops(), 0.0
    card = arguments.device if arguments.device == "cpu" else torch.cuda.get_device_name()
    print(f"{arguments.model}, {arguments.attention}, {arguments.precision}, {card}")
    print(f"{'':12}{'seconds':>10}{'TFLOP':>10}{'MFU':>8}{'peak, GiB':>12}")
    for phase, work in counted.items():
        run = getattr(step, phase)
        seconds = fastest(run, arguments.device)
        total += seconds
        mfu = work / seconds / (arguments.peak * 1e12)
        peak = peak_memory(run, arguments.device) / 2**30
        print(f"{phase:12}{seconds:>10.3f}{work / 1e12:>10.2f}{mfu:>8.1%}{peak:>12.1f}")
    work = sum(counted.values())
    mfu = work / total / (arguments.peak * 1e12)
    print(f"{'whole step':12}{total:>10.3f}{work / 1e12:>10.2f}{mfu:>8.1%}")


if __name__ == "__main__":
    main()
