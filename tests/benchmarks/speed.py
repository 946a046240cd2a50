"""CPU time and operator calls of what `recipes/ebft_full.yaml` computes, before and in a step.

    python -m tests.benchmarks.speed              prints a table
    python -m tests.benchmarks.speed --rounds 1   sooner

The time is that of the process on one thread, which other work on the machine disturbs less than
seconds on a clock. To compare two versions of ebft, run it in a checkout of each, in turns.
docs/benchmarks/speed.md has figures.
"""

import argparse
import inspect
from collections import Counter
from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ebft.features.hidden_states import HiddenStates
from ebft.models.layout import Depth, Loaded, why_not_exact
from ebft.models.options import ModelOptions
from ebft.models.probe import check_layout
from ebft.parts.part import Resources
from ebft.plans.strided import Strided
from ebft.rollout.records import Contexts, Document
from ebft.runs.setup import make_resources
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import accumulate_gradients, clip_gradients
from ebft.training.objective import ObjectiveOptions
from tests.benchmarks.machine import commit, hardware
from tests.tiny import at_a_time, trained_on

LENGTH, DOCUMENTS, N, G, STRIDE = 256, 4, 4, 8, 32
DEPTHS = (0.25, 0.5, 0.75)
PLAN = Strided(start=STRIDE, stride=STRIDE, rollout_length=G)


class Calls(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter[str]()

    def __torch_dispatch__(self, call, _types, args=(), kwargs=None):
        self.count[str(call)] += 1
        return call(*args, **(kwargs or {}))


class Bench:
    """The recipe's sizes, on documents of the standard library."""

    def __init__(self) -> None:
        options = ModelOptions(path="smollm2-135m-instruct", device="cpu", attention="tree")
        self.depth = Depth(LENGTH, G)
        self.resources = make_resources(options, seed=0, depth=self.depth)
        self.policy, tokenizer = self.resources.policy, self.resources.tokenizer
        ids = torch.tensor(tokenizer(inspect.getsource(argparse))["input_ids"])
        self.documents = [
            Document(f"argparse/{i}", ids[1000 * i : 1000 * i + LENGTH]) for i in range(DOCUMENTS)
        ]
        self.contexts = at_a_time(DOCUMENTS, PLAN(self.documents))
        self.sampler = HfTree(n=N).build(self.resources)
        self.feature_map = HiddenStates(depths=DEPTHS).build(self.resources)
        self.rollouts = self.sampler(self.contexts, step=0)
        generator = torch.Generator().manual_seed(0)
        self.advantages = torch.randn(len(self.contexts), N, generator=generator)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=0.0, fused=True)

    def work(self) -> dict[str, Callable[[], object]]:
        """What is measured, by name."""
        one_at_a_time = at_a_time(1, self.contexts)
        return {
            "trial of the layout": self.trial,
            "check of the layout": lambda: check_layout(
                self.policy, self.documents, PLAN, tried=True
            ),
            "sampling": lambda: self.sampler(self.contexts, step=1),
            "sampling, micro_batch 1": lambda: self.sampler(one_at_a_time, step=1),
            "features": lambda: self.feature_map(self.rollouts),
            "training": lambda: self.train(keep_logits=True),
            "training, keep_logits false": lambda: self.train(keep_logits=False),
            "update": self.update,
        }

    def trial(self) -> None:
        def sample(policy: Any, tokenizer: Any, contexts: Contexts):
            alone = Resources(
                policy, tokenizer, lambda: policy, policy.device, torch.float32, seed=0
            )
            return HfTree(n=2).build(alone)(contexts, step=0)

        loaded = Loaded(self.policy, self.resources.tokenizer, "auto")
        assert why_not_exact(loaded, self.depth, sample) is None

    def train(self, *, keep_logits: bool) -> None:
        self.optimizer.zero_grad()
        accumulate_gradients(
            self.policy, *trained_on(self.rollouts, self.advantages, micro_batch=DOCUMENTS),
            ObjectiveOptions(gamma=4.0),
            precision=torch.float32, gradient_checkpointing=False, keep_logits=keep_logits, step=0,
        )  # fmt: skip

    def update(self) -> None:
        clip_gradients(self.policy.parameters(), 1.0)
        self.optimizer.step()


def seconds(work: Callable[[], object]) -> float:
    since = process_time()
    work()
    return process_time() - since


def calls(work: Callable[[], object]) -> int:
    with Calls() as counted:
        work()
    return counted.count.total()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    bench = Bench()
    print(f"{commit()}, {hardware()}, torch {torch.__version__}, median of {rounds}")
    for name, work in bench.work().items():
        times = sorted(seconds(work) for _ in range(rounds))
        print(
            f"{name:28}{median(times):8.2f} s ({times[0]:.2f} to {times[-1]:.2f})"
            f"{calls(work):10,} operators",
            flush=True,
        )


if __name__ == "__main__":
    main()
