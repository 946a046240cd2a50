"""Signal ÷ noise of the policy gradient at equal FLOPs, for today's default and for variants.

    python -m tests.benchmarks.signal train programs code_small      their small models
    python -m tests.benchmarks.signal measure programs               resumes where it was stopped
    python -m tests.benchmarks.signal measure code --documents 200
    python -m tests.benchmarks.signal table programs code            docs/benchmarks/signal.md

`programs`: completions of tiny programs by a model of 1.6 M parameters, trained on them from its
configuration; low entropy. `code_small`: raw Python code with such a model of 1.9 M parameters.
`code`: raw Python code with the embedded model. Every variant gets the
same documents and, for the same sampling and n, the same rollouts. Parts with state are fitted to
`WARM_UP` other documents before, as by earlier steps.

A step of K documents has the gradient's expectation G, the signal, and the noise tr Cov(g)/K of its
documents' gradients g. Variants with the same G are compared by noise × FLOPs of a document alone,
which is known better than |G|².
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ebft.data.documents import DocumentOptions, tokenize
from ebft.data.python_files import PythonFiles
from ebft.data.tiny_programs.source import TinyPrograms
from ebft.features.hidden_states import HiddenStates
from ebft.files import replacing, write_whole
from ebft.models.forward import decode
from ebft.models.load import load_policy
from ebft.models.log_probs import logits
from ebft.models.options import ModelOptions
from ebft.models.shape import ModelShape, context_length
from ebft.models.tree_log_probs import tree_log_probs
from ebft.parts.part import Resources
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.records import Document, Rollouts
from ebft.rollout.tree import grow
from ebft.runs.cost import DocumentTree, flops
from ebft.samplers import hf_tree
from ebft.samplers.hf_tree import HfTree
from ebft.training.objective import policy_gradient_loss
from ebft.training.sketch import Sketch
from tests.benchmarks.arithmetic import Arithmetic
from tests.benchmarks.machine import ROOT
from tests.benchmarks.signal_table import Record, page
from tests.benchmarks.signal_variants import Batch, LastTokens, Variant, make_variants

PAGE = ROOT / "docs" / "benchmarks" / "signal.md"
RUNS = ROOT / "runs" / "signal"
MOST, IN_HALVES, LIKELIEST = 16, 8, 16
"""Rollouts of a context, independent and in halves; last tokens that may be summed over."""
WARM_UP, A_STEP = 96, 8
"""Documents that parts with state are fitted to, and how many of them at a time."""
DOCUMENTS_A_STEP = 16
"""Over which the cost of a regression's fit is divided."""
SKETCH = 16_381


@dataclass(frozen=True)
class World:
    """A model on a kind of documents."""

    name: str
    model: str
    plan: Completion | Strided
    length: int
    pooling: str
    last_tokens: bool

    def examples(self, count: int) -> list:
        if self.name == "programs":
            source = TinyPrograms(train=1, held_out=count, out_of_distribution=count, seed=77)()
            return [*source.held_out, *source.out_of_distribution]
        return list(PythonFiles(held_out=0.2)().held_out)

    def documents(self, resources: Resources, count: int) -> list[Document]:
        config = resources.policy.config
        found = tokenize(
            self.examples(count), resources.tokenizer, DocumentOptions(length=self.length),
            self.plan, split="held_out", reads=context_length(config), embeds=config.vocab_size,
        ).documents  # fmt: skip
        order = list(range(len(found)))
        random.Random(0).shuffle(order)
        return [found[i] for i in order[:count]]


class Training(NamedTuple):
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


def worlds() -> dict[str, World]:
    small = {
        name: str(RUNS / name / "checkpoints" / f"step-{training.steps:06d}")
        for name, training in TRAININGS.items()
    }
    strided = Strided(start=32, stride=64, rollout_length=8)
    programs, code_small = small["programs"], small["code_small"]
    found = (
        World("programs", programs, Completion(rollout_length=24), 128, "mean", last_tokens=False),
        World("code_small", code_small, strided, 256, "last", last_tokens=True),
        World("code", "smollm2-135m-instruct", strided, 256, "last", last_tokens=True),
    )
    return {world.name: world for world in found}


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


class Lab:
    """A world's model with what samples and embeds its rollouts."""

    def __init__(self, world: World) -> None:
        self.world = world
        policy, tokenizer = load_policy(ModelOptions(path=world.model, device="cpu"))
        self.policy = policy.eval()
        self.resources = Resources(
            policy=policy, tokenizer=tokenizer, load_base=lambda: policy,
            device=torch.device("cpu"), precision=torch.float32, seed=0,
        )  # fmt: skip
        self.features = HiddenStates(pooling=world.pooling).build(self.resources)
        self.samplers = {
            "independent": HfTree(n=MOST).build(self.resources),
            "arithmetic": HfTree(n=IN_HALVES).build(self.resources),
        }
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.sketch = Sketch(self.parameters, seed=0, size=SKETCH)

    def batch(self, documents: Sequence[Document], sampling: str) -> Batch:
        contexts = self.world.plan(documents)
        sampler = self.samplers[sampling]
        if sampling == "arithmetic":
            with Arithmetic(IN_HALVES).replaces(hf_tree, "draw"):
                rollouts = sampler(contexts, step=0)
        else:
            rollouts = sampler(contexts, step=0)
        features, states = self.features.with_states(rollouts)
        last = self.last_tokens(rollouts) if self.world.last_tokens else None
        return Batch(rollouts, features, states, last)

    @torch.no_grad()
    def last_tokens(self, rollouts: Rollouts) -> LastTokens:
        """By independent rollouts that differ in their last token: the features are those of a
        decoder with a cache, whose cost is counted."""
        tree = grow(rollouts, steps=rollouts.contexts.rollout_length - 1)
        hidden = decode(self.policy, tree.tokens, tree.positions, tree.mask)[0]
        predicts = tree.logit_index[..., -1]
        z = logits(self.policy, hidden[predicts.flatten()]).softmax(-1)
        probabilities, tokens = z.view(*predicts.shape, -1).topk(LIKELIEST, -1)
        each = []
        for k in range(LIKELIEST):
            other = torch.cat([rollouts.tokens[..., :-1], tokens[..., k : k + 1]], -1)
            each.append(self.features(replace(rollouts, tokens=other)).samples)
        same = tokens == rollouts.tokens[..., -1:]
        rank = torch.where(same.any(-1), same.int().argmax(-1), LIKELIEST)
        return LastTokens(probabilities, torch.stack(each, -2), rank)

    def gradients(
        self, rollouts: Rollouts, advantages: dict[str, Tensor]
    ) -> Iterator[tuple[str, float, Tensor]]:
        """The squared norm and the sketch of each variant's gradient."""
        log_probs = tree_log_probs(self.policy, rollouts, train_documents=False).rollouts
        for name, A in advantages.items():
            n = A.shape[1]
            loss = policy_gradient_loss(
                log_probs[:, :n], rollouts.mask[:, :n], A, contexts=len(A), reduction="sum"
            )
            gradient = torch.autograd.grad(loss, self.parameters, retain_graph=True)
            yield name, sum(float(g.square().sum()) for g in gradient), self.sketch(gradient)


def measure(world: World, folder: Path, count: int) -> None:
    """Writes a file for each document; those that are there are not measured again."""
    lab = Lab(world)
    variants, warm_up = make_variants(last_tokens=world.last_tokens)
    documents = lab.world.documents(lab.resources, WARM_UP + count)
    folder.mkdir(parents=True, exist_ok=True)
    done = {int(file.stem) for file in folder.glob("*.pt")}
    todo = [i for i in range(WARM_UP, len(documents)) if i not in done]
    if todo:
        for start in tqdm(range(0, WARM_UP, A_STEP), "warm-up"):
            batch = lab.batch(documents[start : start + A_STEP], "independent").first(4)
            for absorb in warm_up:
                absorb(batch)
    for i in tqdm(todo, world.name):
        record = of_document(lab, documents[i], variants)
        with replacing(folder / f"{i}.pt") as file:
            torch.save(record, file)


def of_document(lab: Lab, document: Document, variants: dict[str, Variant]) -> Record:
    squared, sketches, batches = {}, {}, {}
    for sampling in dict.fromkeys(variant.sampling for variant in variants.values()):
        batch = batches[sampling] = lab.batch([document], sampling)
        advantages = {
            name: variant.advantages(batch.first(variant.n))
            for name, variant in variants.items()
            if variant.sampling == sampling
        }
        for name, norm, sketch in lab.gradients(batch.rollouts, advantages):
            squared[name], sketches[name] = norm, sketch
    rollouts = batches["independent"].rollouts
    mean_length = float(rollouts.mask.sum(-1).float().mean())
    entropy = float(-rollouts.log_probs[rollouts.mask].mean())
    cost = {
        name: cost_of(lab, document, variant, mean_length) for name, variant in variants.items()
    }
    return {
        "name": document.name, "cluster": document.cluster, "squared": squared,
        "sketch": sketches, "flops": cost, "nats": entropy,
    }  # fmt: skip


def cost_of(lab: Lab, document: Document, variant: Variant, length: float) -> float:
    """FLOPs of sampling, features and training, for rollouts of so many tokens."""
    contexts = lab.world.plan([document])
    shape, depth = ModelShape.of(lab.policy.config), 0.75
    tree = DocumentTree(
        document.tokens.numel(), contexts.anchor.tolist(), variant.n, max(1, round(length))
    )
    frozen = 2.0 * depth * shape.layers * shape.layer_weights
    total = flops(shape, tree, depth=depth).total + frozen * variant.extra_frozen * tree.rollouts
    if variant.regression:  # moments and predictions of each token, and a fit each step
        D = 3 * shape.hidden
        F = (2 if lab.world.pooling == "mean" else 1) * D + 2
        total += 2 * F * (F + 2 * D) * tree.rollouts * tree.rollout_length
        total += (2 / 3 * F**3 + 2 * F**2 * D) / DOCUMENTS_A_STEP
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "measure", "table"])
    parser.add_argument("worlds", nargs="+", choices=[*worlds()])
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RUNS / "measured")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    if options.what == "table":
        variants, _ = make_variants(last_tokens=True)
        text = page({name: options.out / name for name in options.worlds}, variants)
        write_whole(options.page, text)
        print(options.page)
    for name in options.worlds:
        if options.what == "train":
            train(name)
        elif options.what == "measure":
            measure(worlds()[name], options.out / name, options.documents)


if __name__ == "__main__":
    main()
