"""Seconds of a step on a cluster, from the cost model's FLOPs and bytes and stated bandwidths.

A phase takes as long as the slowest of what it needs: products, the gathering of weights, which
FSDP does for a layer while the one before computes, or the launching of kernels. What is not known
is left out: imbalance between processes, FSDP's own time in Python, memory that is fragmented.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

from ebft.models.cost import GIB, flops
from ebft.models.shape import layer_index
from ebft.runs.estimate import StepEstimate
from ebft.runs.memory import SHARE

KERNELS_OF_A_TOKEN, KERNELS_OF_TRAINING = 68, 454
"""Kernels that a layer launches for a token of all rollouts, and for the forward and backward of a
micro-batch: docs/gpu.md."""
BF16, FLOAT32 = 2, 4
UPDATE = 28
"""Bytes that AdamW reads and writes for a weight: four values of float32, and three again."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory` in bytes as torch sees it, `peak` in FLOP/s of dense bfloat16, `hbm` in bytes/s."""

    name: str
    memory: float
    peak: float
    hbm: float


GPUS = {
    "h100": Gpu("H100", 79 * GIB, 989e12, 3.35e12),
    "h200": Gpu("H200", 139 * GIB, 989e12, 4.8e12),
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines of `per_machine` GPUs. Bandwidths are bytes/s of a GPU in one direction; `reached`
    is the share of them that collectives reach, `mfu` and `decode_mfu` those of the peak that
    products reach in large batches and while tokens are sampled. `hop` is the latency of a step of
    a ring, `launch` the time of launching a kernel, both in seconds."""

    gpu: Gpu
    per_machine: int = 8
    nvlink: float = 450e9
    network: float = 50e9
    reached: float = 0.8
    mfu: float = 0.4
    decode_mfu: float = 0.2
    hop: float = 3e-6
    launch: float = 5e-6

    def gather(self, size: float, ranks: int, collectives: int = 1) -> float:
        """Seconds of an all-gather of `size` bytes in all, or of a reduce-scatter; as `collectives`
        of the same size, one after another.

        Each GPU receives what it does not have over NVLink. What a machine does not have enters it
        once, over the network cards of all its GPUs.
        """
        machines = max(1, ranks // self.per_machine)
        inside = size * (1 - 1 / ranks) / self.nvlink
        between = size * (1 - 1 / machines) / (self.per_machine * self.network)
        return max(inside, between) / self.reached + collectives * (ranks - 1) * self.hop

    def all_reduce(self, size: float, replicas: int) -> float:
        """Seconds of an all-reduce of `size` bytes of each GPU with its peers on other machines."""
        there_and_back = 2 * size * (1 - 1 / replicas) / (self.network * self.reached)
        return there_and_back + (2 * (replicas - 1) * self.hop if replicas > 1 else 0)


@dataclass(frozen=True, slots=True)
class Layout:
    """So many processes, a GPU each, in `replicas` that each hold all weights (HSDP)."""

    processes: int
    replicas: int = 1

    @property
    def shards(self) -> int:
        return self.processes // self.replicas


class Phase(NamedTuple):
    """Seconds of each of what a phase needs, and the bytes that a GPU receives."""

    name: str
    compute: float
    communication: float
    launches: float
    received: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.communication, self.launches)


@dataclass(frozen=True, slots=True)
class Step:
    """An optimizer step of a recipe on a cluster; `kept`: sampling keeps all weights gathered."""

    estimate: StepEstimate
    cluster: Cluster
    layout: Layout
    micro_batch: int
    kept: bool = False

    @property
    def documents(self) -> int:
        """Of a process."""
        return self.estimate.options.training.documents_per_step // self.layout.processes

    @property
    def micro_batches(self) -> int:
        return ceil(self.documents / self.micro_batch)

    def phases(self) -> list[Phase]:
        return [*self._sampling(), self._features(), self._training(), self._update()]

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases())

    @property
    def mfu(self) -> float:
        """FLOPs without those of recomputed layers, over what the GPUs could do in that time."""
        training = self.estimate.options.training
        once = training.model_copy(update={"gradient_checkpointing": False})
        options = self.estimate.options.model_copy(update={"training": once})
        useful = replace(self.estimate, options=options).flops()
        return useful / (self.seconds * self.layout.processes * self.cluster.gpu.peak)

    def _flop(self, name: str) -> float:
        """Of the documents of a process."""
        return self.documents * next(it.flop for it in self.estimate.work() if it.name == name)

    def _sampling(self) -> Iterator[Phase]:
        """The prompt, then a token of all rollouts at a time. Weights outside the layers stay
        gathered for a micro-batch, and layers are gathered for each token."""
        model, tree, cluster = self.estimate.model, self.estimate.typical, self.cluster
        prompt = self.documents * flops(model, replace(tree, rollout_length=1)).sampling
        tokens, count = tree.rollout_length - 1, self.micro_batches
        outside, layers = self._gather(FLOAT32, self._outside, 1), self._gather_layers(1.0)
        yield Phase(
            "sampling: prompts",
            prompt / (cluster.gpu.peak * cluster.mfu),
            count * (outside.communication + layers.communication),
            0.0,
            count * (outside.received + layers.received),
        )
        again = 0 if self.kept else count * tokens
        cache = BF16 * 2 * model.layers * model.kv_heads * model.head_dim * tree.sampling_tokens
        read = BF16 * model.layers * model.layer_weights + self.micro_batch * cache
        compute = (self._flop("sampling") - prompt) / (cluster.gpu.peak * cluster.decode_mfu)
        yield Phase(
            "sampling: tokens",
            max(compute, count * tokens * read / cluster.gpu.hbm),
            again * layers.communication,
            count * tokens * model.layers * KERNELS_OF_A_TOKEN * cluster.launch,
            again * layers.received,
        )

    def _features(self) -> Phase:
        """A forward of the frozen model up to the deepest feature; with an adapter, of the
        policy's own weights."""
        count, estimate = self.micro_batches, self.estimate
        of_outside = FLOAT32 if estimate.adapter else BF16
        parts = self._gather(of_outside, self._outside, 1), self._gather_layers(estimate.depth)
        return Phase(
            "features",
            self._flop("features") / (self.cluster.gpu.peak * self.cluster.mfu),
            count * sum(part.communication for part in parts),
            0.0,
            count * sum(part.received for part in parts),
        )

    def _training(self) -> Phase:
        """All weights for the forward and again for the backward, and the sum of the gradients, for
        each micro-batch."""
        estimate, layout, cluster = self.estimate, self.layout, self.cluster
        trained = FLOAT32 * (estimate.adapter or estimate.model.parameters)
        outside, layers = self._gather(FLOAT32, self._outside, 1), self._gather_layers(1.0)
        scatter = self._gather(1, trained, estimate.model.layers + 1)
        across = cluster.all_reduce(trained / layout.shards, layout.replicas)
        received = 2 * (outside.received + layers.received) + scatter.received
        received += 2 * trained / layout.shards * (1 - 1 / layout.replicas)
        gathers = 2 * (outside.communication + layers.communication)
        return Phase(
            "training",
            self._flop("training") / (cluster.gpu.peak * cluster.mfu),
            self.micro_batches * (gathers + scatter.communication + across),
            self.micro_batches * estimate.model.layers * KERNELS_OF_TRAINING * cluster.launch,
            self.micro_batches * received,
        )

    def _update(self) -> Phase:
        trained = self.estimate.adapter or self.estimate.model.parameters
        return Phase(
            "update", UPDATE * trained / self.layout.shards / self.cluster.gpu.hbm, 0.0, 0.0, 0.0
        )

    @property
    def _outside(self) -> float:
        model = self.estimate.model
        return model.parameters - model.layers * model.layer_weights

    def _gather_layers(self, depth: float) -> Phase:
        model = self.estimate.model
        layers = layer_index(depth, model.layers)
        return self._gather(BF16, layers * model.layer_weights, layers)

    def _gather(self, each: int, weights: float, collectives: int) -> Phase:
        size, shards = each * weights, self.layout.shards
        seconds = self.cluster.gather(size, shards, collectives)
        return Phase("gather", 0.0, seconds, 0.0, size * (1 - 1 / shards))


def largest_micro_batch(estimate: StepEstimate, gpu: Gpu, layout: Layout) -> int:
    """As `training.micro_batch=auto` chooses it on that GPU; 0 if not even one document fits."""
    most = estimate.options.training.documents_per_step // layout.processes
    fits = (
        estimate.memory(size, processes=layout.processes).total <= SHARE * gpu.memory
        for size in range(1, most + 1)
    )
    return sum(fits)
