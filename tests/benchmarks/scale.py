"""A simulation of large models on many GPUs, from the cost model: the tables of docs/scale.md.

    python -m tests.benchmarks.scale                        prints them
    python -m tests.benchmarks.scale --write                writes them into the page
    python -m tests.benchmarks.scale --gpu h200 --mfu 0.3   with other assumptions: --help

Nothing is measured: FLOPs and bytes are those of `--dry-run`, and seconds follow from them, from
vendors' bandwidths and from the shares of them that the options state (`tests.benchmarks.cluster`).
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache

from transformers import Qwen3MoeConfig

from docs.generate.markdown import table
from ebft.config.load import load_recipe
from ebft.models.cost import GIB, Memory
from ebft.models.shape import SHAPES, ModelShape
from ebft.rollout.tree_mask import ON_GPU
from ebft.runs.estimate import StepEstimate
from ebft.runs.memory import SHARE
from tests.benchmarks.cluster import GPUS, Cluster, Layout, Step, largest_micro_batch
from tests.benchmarks.machine import ROOT

PAGE = ROOT / "docs" / "scale.md"
SEVEN, MIXTURE = "Qwen2.5-7B", "Qwen3-30B-A3B"
RANK = 16
DOCUMENTS = 64
"""Of a step, unless a table says otherwise."""
MODELS = {
    "Qwen2.5-1.5B": SHAPES["Qwen/Qwen2.5-1.5B"],
    SEVEN: SHAPES["Qwen/Qwen2.5-7B"],
    "Qwen2.5-14B": ModelShape(
        hidden=5120, layers=48, heads=40, kv_heads=8, head_dim=128, intermediate=13824,
        vocab=152064, tied=False,
    ),
    "Qwen2.5-32B": ModelShape(
        hidden=5120, layers=64, heads=40, kv_heads=8, head_dim=128, intermediate=27648,
        vocab=152064, tied=False,
    ),
    "Qwen2.5-72B": ModelShape(
        hidden=8192, layers=80, heads=64, kv_heads=8, head_dim=128, intermediate=29568,
        vocab=152064, tied=False,
    ),
    MIXTURE: ModelShape.of(
        Qwen3MoeConfig(
            hidden_size=2048, num_hidden_layers=48, num_attention_heads=32,
            num_key_value_heads=4, head_dim=128, vocab_size=151936, num_experts=128,
            num_experts_per_tok=8, moe_intermediate_size=768, tie_word_embeddings=False,
        )
    ),
}  # fmt: skip
"""From the `config.json` of each."""
ONE_MACHINE, SHARDED, REPLICATED = Layout(8), Layout(64), Layout(64, replicas=8)
TIMES = ("step", "evaluation", "loading")
LENGTHS = ((512, 8), (4096, 8), (32768, 8), (32768, 64))
"""Tokens of a document, and the stride of its anchors."""


@cache
def estimate_of(
    model: str,
    *,
    lora: bool = False,
    documents: int = DOCUMENTS,
    length: int = 1024,
    stride: int = 8,
    tokens: int = 8,
    replicas: int = 1,
) -> StepEstimate:
    """The estimate of recipes/ebft_full.yaml or ebft_lora.yaml for a model on a GPU: documents of
    so many tokens, an anchor every `stride`, 4 rollouts of `tokens` tokens each."""
    file = ROOT / "recipes" / ("ebft_lora.yaml" if lora else "ebft_full.yaml")
    overrides = (
        "model.path=Qwen/Qwen2.5-7B", "model.precision=bfloat16", "model.device=cuda",
        f"documents.length={length}", f"plan.start={stride}", f"plan.stride={stride}",
        f"plan.rollout_length={tokens}", f"training.documents_per_step={documents}",
        "training.micro_batch=1", "training.gradient_checkpointing=true",
        f"parallel.replicas={replicas}",
    )  # fmt: skip
    estimate, shape = StepEstimate.of(load_recipe(file, overrides).options), MODELS[model]
    adapter = shape.adapter_weights(RANK) if lora else 0
    return replace(estimate, model=shape, adapter=adapter)


def work() -> str:
    """Tokens and FLOPs of a document."""
    rows = []
    for name, lora in ((SEVEN, False), (SEVEN, True), (MIXTURE, False)):
        estimate = estimate_of(name, lora=lora)
        stages = [f"{it.tokens:,} / {it.flop / 1e12:,.0f}" for it in estimate.work()]
        step = estimate.flops() / 1e15
        of = f"{name}, LoRA" if lora else name
        weights = f"{estimate.model.parameters / 1e9:.2f}"
        rows.append((of, weights, *stages, f"{step:,.1f}"))
    header = (
        "",
        "weights, 10⁹",
        "sampling",
        "features",
        "training",
        f"PFLOP, {DOCUMENTS} documents",
    )
    return table(header, rows)


SETTINGS = {
    "8": (False, ONE_MACHINE, 64),
    "8, LoRA": (True, ONE_MACHINE, 64),
    "64, FSDP": (False, SHARDED, 512),
    "64, HSDP": (False, REPLICATED, 512),
    "64, LoRA, HSDP": (True, REPLICATED, 512),
    "64, HSDP, 64 documents": (False, REPLICATED, 64),
}
"""GPUs of the 7B model: whether LoRA, their layout, documents of a step."""


def steps_of(cluster: Cluster) -> dict[str, Step]:
    """A step of each setting, with the largest micro-batch that fits."""
    steps = {}
    for name, (lora, layout, documents) in SETTINGS.items():
        estimate = estimate_of(SEVEN, lora=lora, documents=documents, replicas=layout.replicas)
        size = largest_micro_batch(estimate, cluster.gpu, layout)
        assert size > 0, f"{name} does not fit"
        steps[name] = Step(estimate, cluster, layout, size)
    return steps


def memory(cluster: Cluster) -> str:
    """GiB of each GPU by use."""
    steps = steps_of(cluster)
    found = {
        name: step.estimate.memory(step.micro_batch, processes=step.layout.processes).named()
        for name, step in steps.items()
    }
    uses = [use for use in next(iter(found.values())) if use != "Python, torch"]
    rows = [("documents at a time", *(str(step.micro_batch) for step in steps.values()))]
    rows += [(use, *(f"{one[use] / GIB:.1f}" for one in found.values())) for use in uses]
    return table(("GiB of each GPU", *found), rows)


def seconds(cluster: Cluster) -> str:
    """Seconds of a step by phase: what it takes, and what it would take for each need alone."""
    steps = steps_of(cluster)
    rows = []
    phases = {name: step.phases() for name, step in steps.items()}
    for number, phase in enumerate(next(iter(phases.values()))):
        here = [of[number] for of in phases.values()]
        rows.append((f"**{phase.name}**", *(f"**{it.seconds:.2f}**" for it in here)))
        for need in ("compute", "communication", "launches"):
            times = [getattr(it, need) for it in here]
            if any(times) and phase.name != "update":
                rows.append((f"… {need}", *(f"{time:.2f}" for time in times)))
    rows.append(("**step**", *(f"**{step.seconds:.2f}**" for step in steps.values())))
    ahead = [sum(it.seconds for it in of if "sampling" not in it.name) for of in phases.values()]
    rows.append(("… if another machine samples ahead", *(f"{it:.2f}" for it in ahead)))
    rows.append(("MFU", *(f"{step.mfu:.0%}" for step in steps.values())))
    received = [sum(it.received for it in of) / 1e9 for of in phases.values()]
    rows.append(("GB that a GPU receives", *(f"{it:,.0f}" for it in received)))
    throughput = [step.documents / step.seconds for step in steps.values()]
    rows.append(("documents a second and GPU", *(f"{it:.2f}" for it in throughput)))
    return table(("seconds", *steps), rows)


def decoding(cluster: Cluster) -> str:
    """Seconds in which a micro-batch of 4 documents samples, with weights gathered for each token
    and kept gathered (`sampler.keep_weights`)."""
    rows = []
    for model in (SEVEN, MIXTURE):
        for what, stride, tokens in (("strided", 8, 8), ("completion", 512, 512)):
            for layout in (ONE_MACHINE, SHARDED):
                estimate = estimate_of(
                    model, documents=4 * layout.processes, stride=stride, tokens=tokens
                )
                now = Step(estimate, cluster, layout, micro_batch=4)
                kept = replace(now, kept=True)
                times = [sum(it.seconds for it in step.phases()[:2]) for step in (now, kept)]
                rollouts = len(estimate.tree.anchors) * estimate.tree.n
                shape = estimate.model
                size = 2 * shape.layers * shape.layer_weights * (1 - 1 / layout.shards)
                rows.append(
                    (model, what, f"{rollouts} × {tokens}", str(layout.processes),
                     *(f"{it:.2f}" for it in times), f"{size / GIB:.1f}")
                )  # fmt: skip
    header = ("", "plan", "rollouts × tokens", "GPUs", "gathered, s", "kept, s", "kept, GiB more")
    return table(header, rows)


LINKS = {
    "NVLink": lambda cluster: cluster.nvlink,
    "one network card": lambda cluster: cluster.network,
    "10 Gbit Ethernet": lambda _: 1.25e9,
}


def sync(cluster: Cluster) -> str:
    """Bytes and seconds in which a server gets the weights."""
    rows = []
    for name, lora in ((SEVEN, False), (SEVEN, True), (MIXTURE, False)):
        estimate = estimate_of(name, lora=lora)
        size = 2.0 * (estimate.adapter or estimate.model.parameters)
        times = (size / (link(cluster) * cluster.reached) for link in LINKS.values())
        of = f"{name}, the adapter alone" if lora else name
        rows.append((of, f"{size / 1e9:.2f}", *(f"{it:.2f}" for it in times)))
    return table(("", "GB in bfloat16", *(f"{name}, s" for name in LINKS)), rows)


def fitting() -> str:
    """GiB of each GPU for one document at a time."""
    rows = []
    for name in MODELS:
        for lora in (False, True):
            row = [f"{name}, LoRA" if lora else name]
            for layout in (ONE_MACHINE, SHARDED):
                row += [one_document(name, layout, lora, *it) for it in LENGTHS]
            rows.append(row)
    columns = [
        f"{layout.processes} GPUs, {length:,}{'' if stride == 8 else f', stride {stride}'}"
        for layout in (ONE_MACHINE, SHARDED)
        for length, stride in LENGTHS
    ]
    return table(("", *columns), rows)


def one_document(name: str, layout: Layout, lora: bool, length: int, stride: int) -> str:
    """The peak, and if it does not fit an H100, when it is reached: *fits an H200*, **neither**."""
    estimate = estimate_of(name, lora=lora, length=length, stride=stride)
    found = estimate.memory(1, processes=layout.processes)
    said = f"{found.total / GIB:.0f}"
    if found.total <= SHARE * GPUS["h100"].memory:
        return said
    emphasis = "*" if found.total <= SHARE * GPUS["h200"].memory else "**"
    times = peaks(found)
    return f"{emphasis}{said}{emphasis} {max(times, key=times.__getitem__)}"


def peaks(memory: Memory) -> dict[str, float]:
    """Bytes at each time of a run, the largest of which is the estimate."""
    always = memory.weights + memory.optimizer + memory.frozen
    backward = max(memory.activations + memory.logits, memory.update)
    times = {
        "step": always + memory.gradients + backward,
        "sampling": always + memory.sampling,
        "evaluation": always + memory.evaluation,
        "loading": memory.loading,
    }
    assert max(times.values()) == memory.total
    return times


def breaking() -> str:
    """GiB of each GPU at the times of a run, and of a machine of 8 while models are loaded."""
    rows, layouts = [], (ONE_MACHINE, SHARDED)
    for name in MODELS:
        for lora in (False, True):
            estimate = estimate_of(name, lora=lora, length=4096)
            found = [estimate.memory(1, processes=layout.processes) for layout in layouts]
            times = [f"{peaks(it)[time] / GIB:.0f}" for time in TIMES for it in found]
            host = (f"{8 * it.loading / GIB:.0f}" for it in found)
            rows.append((f"{name}, LoRA" if lora else name, *times, *host))
    columns = [f"{time}: {it.processes}" for time in (*TIMES, "the machine") for it in layouts]
    return table(("GiB", *columns), rows)


def lengths(cluster: Cluster) -> str:
    """What grows with a document of the 7B model."""
    rows = []
    for length, stride in LENGTHS:
        estimate = estimate_of(SEVEN, length=length, stride=stride)
        tree, shape = estimate.tree, estimate.model
        queries, keys = ON_GPU.queries + tree.rollout_length, length + tree.rollout_length
        flop = sum(it.flop for it in estimate.work())
        sizes = (
            4 * (tree.columns - 1) * shape.vocab,
            2 * 2 * shape.layers * shape.kv_heads * shape.head_dim * tree.sampling_tokens,
            3 * 4 * shape.heads * queries * keys,
            tree.columns**2,
        )
        rows.append(
            (f"{length:,}", str(stride), f"{tree.columns:,}", f"{flop / 1e15:.2f}",
             f"{flop / (cluster.gpu.peak * cluster.mfu):,.1f}",
             *(f"{size / GIB:.1f}" for size in sizes))
        )  # fmt: skip
    header = (
        "tokens", "stride", "tokens of the tree", "PFLOP", "s on one GPU", "all logits, GiB",
        "keys and values, GiB", "scores of a group, GiB", "dense mask, GiB",
    )  # fmt: skip
    return table(header, rows)


def assumptions(cluster: Cluster) -> str:
    """Seconds of a step with other assumptions, one changed at a time."""
    others = {
        "as above": cluster,
        "half the MFU": replace(cluster, mfu=cluster.mfu / 2, decode_mfu=cluster.decode_mfu / 2),
        "twice the MFU": replace(cluster, mfu=2 * cluster.mfu, decode_mfu=2 * cluster.decode_mfu),
        "no NVLink: 64 GB/s": replace(cluster, nvlink=64e9),
        "a quarter of the network": replace(cluster, network=cluster.network / 4),
        "ten times the latency": replace(cluster, hop=10 * cluster.hop),
    }
    sizes = {name: step for name, step in steps_of(cluster).items() if "LoRA" not in name}
    rows = [
        (name, *(f"{replace(step, cluster=other).seconds:.2f}" for step in sizes.values()))
        for name, other in others.items()
    ]
    return table(("seconds of a step", *sizes), rows)


def tables(cluster: Cluster) -> dict[str, str]:
    """The tables of the page, by name."""
    return {
        "work": work(),
        "memory": memory(cluster),
        "seconds": seconds(cluster),
        "decoding": decoding(cluster),
        "assumptions": assumptions(cluster),
        "sync": sync(cluster),
        "fitting": fitting(),
        "breaking": breaking(),
        "lengths": lengths(cluster),
    }


def filled(page: str, found: dict[str, str]) -> str:
    """The page with each table between its two marks."""
    for name, text in found.items():
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    defaults = Cluster(GPUS["h100"])
    for field in fields(Cluster):
        if field.name != "gpu":
            value = getattr(defaults, field.name)
            name = f"--{field.name.replace('_', '-')}"
            parser.add_argument(name, type=type(value), default=value)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scale.md")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables, or writes them into the page."""
    options = vars(arguments().parse_args(argv))
    write, gpu = options.pop("write"), options.pop("gpu")
    found = tables(Cluster(GPUS[gpu], **options))
    if write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
        return
    for name, text in found.items():
        print(f"{name}\n\n{text}")


if __name__ == "__main__":
    main()
