"""The tree against the layout of the public implementations: time, tokens and peak memory.

    python -m tests.benchmarks.tree         writes docs/benchmarks/tree.md

All in one process with the same weights, documents and random numbers, taken in turns; before
anything is timed, all must sample the same tokens and give the same features, loss and gradient.
The public layout is measured with the attention that it is published with, and with fused attention
(`LAYOUTS`). Times are medians of some rounds, with the fastest and the slowest. Memory is the peak
above what the process holds
before the phase: weights, frozen weights, optimizer state.
"""

import argparse
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple, Self

import torch
from tqdm import tqdm

from ebft.data.python_files import PythonFiles
from ebft.features.hidden_states import HiddenStates
from ebft.models.cost import DECODER_PASSES, DocumentTree, flops
from ebft.models.load import load_frozen, load_policy
from ebft.models.log_probs import token_log_probs
from ebft.models.options import ModelOptions
from ebft.models.shape import ModelShape, layer_index
from ebft.parts.part import Resources
from ebft.plans.strided import Strided
from ebft.rollout.records import Document, Rollouts
from ebft.samplers.hf_tree import HfTree
from ebft.training.loop import accumulate_gradients
from ebft.training.objective import ObjectiveOptions
from tests.benchmarks import public_layout
from tests.benchmarks.machine import ROOT, commit, hardware, wait_for
from tests.benchmarks.peak import MIB, peak_memory
from tests.tiny import trained_on

PAGE = ROOT / "docs" / "benchmarks" / "tree.md"
LENGTHS, N, STRIDE, G, GAMMA, ROUNDS = (256, 512), 4, 8, 8, 4.0, 5
DEPTHS = (0.25, 0.5, 0.75)
LAYOUTS = {"tree": "ebft_tree", "public": "eager", "fused": "sdpa"}


@dataclass
class Measured:
    """One phase of one layout: `seconds` is the median of `all_seconds`."""

    all_seconds: tuple[float, ...]
    tokens: int
    memory: int

    @property
    def seconds(self) -> float:
        return median(self.all_seconds)

    @property
    def spread(self) -> str:
        each = self.all_seconds
        return f"{self.seconds:.2f} ({min(each):.2f} to {max(each):.2f})"


class Bench:
    """One document, one policy, all layouts, where the policy is; its attention is the tree's."""

    def __init__(self, policy, frozen, document: Document) -> None:
        self.policy, self.frozen, self.device = policy, frozen, policy.device
        self.resources = Resources(
            policy=policy, tokenizer=None, load_base=lambda: frozen,
            device=self.device, precision=torch.float32, seed=0,
        )  # fmt: skip
        plan = Strided(start=8, stride=STRIDE, rollout_length=G)
        self.contexts = plan([document]).to(self.device)
        self.sampler = HfTree(n=N).build(self.resources)
        self.feature_map = HiddenStates(depths=DEPTHS).build(self.resources)
        self.rollouts: Rollouts = self.sampler(self.contexts, step=0)
        generator = torch.Generator().manual_seed(0)
        self.advantages = torch.randn(len(self.contexts), N, generator=generator).to(self.device)
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=0.0)
        depth = self.policy.config.num_hidden_layers
        self.layers = [layer_index(f, depth) for f in DEPTHS]

    @classmethod
    def of_embedded(cls, length: int) -> Self:
        """The embedded model on a document of the standard library, on the CPU."""
        options = ModelOptions(path="smollm2-135m-instruct", device="cpu")
        policy, tokenizer = load_policy(options)
        frozen = load_frozen(options, torch.float32)
        resources = Resources(
            policy=policy, tokenizer=tokenizer, load_base=cache(lambda: frozen),
            device=policy.device, precision=torch.float32, seed=0,
        )  # fmt: skip
        texts = PythonFiles().build(resources)().held_out
        ids = next(
            ids for text in texts if len(ids := tokenizer(text.completion)["input_ids"]) >= length
        )
        return cls(policy, frozen, Document("document", torch.tensor(ids[:length])))

    def tree_sample(self):
        return self.sampler(self.contexts, step=0).tokens

    def tree_features(self):
        return self.feature_map(self.rollouts).samples

    def tree_train(self):
        losses = accumulate_gradients(
            self.policy, *trained_on(self.rollouts, self.advantages), ObjectiveOptions(gamma=GAMMA),
            precision=torch.float32, gradient_checkpointing=False, step=0,
        )  # fmt: skip
        return losses.policy_gradient.loss + GAMMA * losses.cross_entropy

    def public_sample(self):
        return public_layout.sample(self.policy, self.contexts, n=N, seed=0, step=0)

    def public_features(self):
        return public_layout.features(self.frozen, self.rollouts, self.layers)

    def public_train(self):
        loss = public_layout.loss(self.policy, self.rollouts, self.advantages, GAMMA)
        loss.backward()
        return float(loss.detach())

    def run(self, layout: str, phase: str) -> object:
        """One phase, or the whole step, in one layout."""
        if phase == "step":
            for part in PHASES:
                self.run(layout, part)
            return self.update()
        name = "tree" if layout == "tree" else "public"
        with public_layout.attention([self.policy, self.frozen], LAYOUTS[layout]):
            return getattr(self, f"{name}_{phase}")()

    def update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def sft_gradients(self) -> None:
        tokens = self.contexts.tokens
        hidden = self.policy.base_model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        (-token_log_probs(self.policy, hidden[0], tokens[0, 1:]).mean()).backward()

    def sft_step(self) -> None:
        self.sft_gradients()
        self.update()

    def update_seconds(self) -> float:
        self.sft_gradients()
        wait_for(self.device.type)
        start = perf_counter()
        self.update()
        wait_for(self.device.type)
        return perf_counter() - start

    def check(self) -> None:
        """All layouts are the same algorithm."""
        ours = self._results("tree")
        for layout in ("public", "fused"):
            theirs = self._results(layout)
            # Near-ties may fall differently in float32, and a token decides all that follow it.
            same = (ours.tokens == theirs.tokens).float().mean()
            assert same > 0.98, f"only {same:.3f} of the sampled tokens are the same"
            torch.testing.assert_close(ours.features, theirs.features, atol=1e-4, rtol=0)
            assert abs(ours.loss - theirs.loss) < 1e-3 * abs(theirs.loss), (ours.loss, theirs.loss)
            distance = (ours.gradient - theirs.gradient).norm()
            assert distance < 1e-3 * theirs.gradient.norm()

    def _results(self, layout: str) -> "Results":
        tokens, features, loss = (self.run(layout, phase) for phase in PHASES)
        gradient = self.policy.get_input_embeddings().weight.grad.clone()
        self.optimizer.zero_grad(set_to_none=True)
        return Results(tokens, features, loss, gradient)


class Results(NamedTuple):
    """What a layout makes of the document: all layouts must make the same."""

    tokens: torch.Tensor
    features: torch.Tensor
    loss: float
    gradient: torch.Tensor


PHASES = ("sample", "features", "train")
NAMES = {"sample": "sampling", "features": "features", "train": "training", "step": "whole step"}


def measure(bench: Bench, work: Callable[[], object]) -> Measured:
    """One run of `work`."""
    seen: list[int] = []
    hooks = [
        model.base_model.register_forward_pre_hook(
            lambda _m, _a, others: seen.append(others["input_ids"].numel()), with_kwargs=True
        )
        for model in (bench.policy, bench.frozen)
    ]
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        device = bench.device.type
        wait_for(device)
        start = perf_counter()
        work()
        wait_for(device)
        seconds = perf_counter() - start

    memory = peak_memory(timed, bench.device.type)
    for hook in hooks:
        hook.remove()
    bench.optimizer.zero_grad(set_to_none=True)
    return Measured((seconds,), sum(seen), memory)


def together(runs: list[Measured]) -> Measured:
    """Several runs of the same work as one."""
    seconds = tuple(second for run in runs for second in run.all_seconds)
    return Measured(seconds, runs[0].tokens, max(run.memory for run in runs))


def public_flops(shape: ModelShape, S: int, K: int) -> dict[str, float]:
    """What the public layout multiplies: dense attention over every row, logits everywhere."""

    def forward(T: int, *, head: bool, weights=1.0, attention=1.0, logits=1.0) -> float:
        per_token = 2.0 * shape.layers * shape.layer_weights * weights
        per_token += 2.0 * shape.head_weights * logits if head else 0
        dense = 4.0 * shape.layers * shape.heads * shape.head_dim * T * T * attention
        return N * (per_token * T + dense)

    T = S + K * G
    passes = DECODER_PASSES
    return {
        "sample": sum(forward(S + t * K, head=True) for t in range(G)),
        "features": forward(T, head=True),
        "train": forward(T, head=True, weights=passes, attention=passes, logits=passes),
    }


def timed_layouts(bench: Bench, rounds: int, say: str) -> dict[tuple[str, str], Measured]:
    """Each phase, and the whole step, in each layout, taken in turns."""
    runs: dict[tuple[str, str], list[Measured]] = {}
    with tqdm(total=rounds * len(LAYOUTS) * len(NAMES), desc=say) as bar:
        for _ in range(rounds):
            for phase, layout in product(NAMES, LAYOUTS):
                runs.setdefault((layout, phase), []).append(
                    measure(bench, partial(bench.run, layout, phase))
                )
                bar.update()
    return {key: together(found) for key, found in runs.items()}


def run(length: int, rounds: int) -> list[str]:
    bench = Bench.of_embedded(length)
    bench.check()
    bench.run("tree", "step")  # so that the optimizer has its state
    figures = timed_layouts(bench, rounds, f"S {length}")
    sft = together([measure(bench, bench.sft_step) for _ in range(rounds)])
    plain = together([measure(bench, bench.sft_gradients) for _ in range(rounds)])
    update = median(bench.update_seconds() for _ in range(rounds))

    K = len(bench.contexts)
    shape = ModelShape.of(bench.policy.config)
    tree = DocumentTree(length, bench.contexts.anchor.tolist(), N, G)
    count = flops(shape, tree, depth=max(DEPTHS))
    ours = {"sample": count.sampling, "features": count.features, "train": count.training}
    theirs = public_flops(shape, length, K)
    for counts in (ours, theirs):
        counts["step"] = sum(counts.values())
    forwarded = (tree.sampling_tokens, tree.for_features.tokens, tree.predicting_tokens)
    tokens = dict(zip(PHASES, forwarded, strict=True))
    tokens["step"] = sum(tokens.values())

    lines = [
        f"## S {length}: {K} anchors, {N} rollouts each",
        "",
        (
            "| | tree, s | predicted, s | public layout, s | **faster** | fused, s | faster | "
            "by FLOPs | tokens | at most | public | peak memory, MiB | public | **less** | fused | "
            "less |"
        ),
        "| --- |" + " ---: |" * 15,
    ]
    # As a plain forward and backward over the document: FLOPs know nothing of a machine.
    speed = flops(shape, DocumentTree(length, [], 0, 1)).training / plain.seconds
    predicted = {phase: ours[phase] / speed for phase in PHASES}
    predicted["step"] = sum(predicted.values()) + update
    for phase, name in NAMES.items():
        a, b, c = (figures[layout, phase] for layout in LAYOUTS)
        assert a.tokens <= tokens[phase], "what the cost model counts is the most"
        lines.append(
            f"| {name} | {a.spread} | {predicted[phase]:.2f} | {b.spread} | "
            f"**{b.seconds / a.seconds:.1f}×** | {c.spread} | {c.seconds / a.seconds:.1f}× | "
            f"{theirs[phase] / ours[phase]:.1f}× | {a.tokens:,} | {tokens[phase]:,} | "
            f"{b.tokens:,} | "
            f"{a.memory / MIB:,.0f} | {b.memory / MIB:,.0f} | **{b.memory / a.memory:.1f}×** | "
            f"{c.memory / MIB:,.0f} | {c.memory / a.memory:.1f}× |"
        )
    step = figures["tree", "step"].seconds
    summary = (
        f"One EBFT step takes {step / sft.seconds:.1f} times as long as one SFT step on the same "
        f"document ({step:.2f} s and {sft.seconds:.2f} s). The cost model counts "
        f"{ours['step'] / 1e12:.2f} TFLOP a step; times are predicted from the {speed / 1e9:.0f} "
        "GFLOP/s of a plain forward and backward over the document, and an update of "
        f"{update:.2f} s. The step takes {step / predicted['step']:.2f} times what is predicted."
    )
    return [*lines, "", *textwrap.wrap(summary, 110), ""]


HEADER = """\
# The tree against the public layout

    python -m tests.benchmarks.tree

{date}, commit {commit}, {hardware}, torch {torch}, float32.

SmolLM2-135M, one document of Python code, start 8, stride {stride}, G {g}, n {n}. The public layout
(tests/benchmarks/public_layout.py) is our own rendering of what the public implementations do on a
CPU: n copies of the document, every decoding step a forward of the whole row without a cache, dense
masks filled by Python loops, and every forward one of the whole model, the features' too: all
layers, logits at every position, transformers' eager attention. `fused` is the same with its fused
attention (SDPA), which neither uses: what is left there is owed to the tree alone. All draw with
the tree's random numbers, and before timing they are held to the same tokens, features, loss and
gradient. A whole step has clipping and AdamW in it. Times are medians of {rounds} rounds (fastest
to slowest), the layouts taken in turns. Peak memory is what is resident above weights, frozen
weights and optimizer state; training's has the gradients in it (513 MiB). Not in the public
layout's step: two more forwards of the feature network for the figures of a classifier that is not
trained, in the authors' code.

`tokens` are those that the tree computed, `at most` those of rollouts that have nothing in common,
which the cost model counts: prefixes that rollouts or the document share are computed once.

What limits it: features are a single forward in either layout, so the tree saves the trunk's copies
and what is above the deepest layer read; so it is with training, which forwards no token from which
nothing is predicted either. FLOPs leave out elementwise work, eager attention's most of all.
"""


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    header = HEADER.format(
        date=date.today(), commit=commit(), hardware=hardware(), n=N, g=G,
        torch=torch.__version__, stride=STRIDE, rounds=arguments.rounds,
    )  # fmt: skip
    lines = [line for length in arguments.lengths for line in run(length, arguments.rounds)]
    arguments.page.parent.mkdir(parents=True, exist_ok=True)
    arguments.page.write_text(header + "\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
