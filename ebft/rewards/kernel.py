"""Reward `kernel`: a kernel score, the reward of feature matching with another inner product."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal, Self

from jaxtyping import Float
from pydantic import Field, model_validator

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.lazy import Tensor
from ebft.parts.part import Claim, Resources
from ebft.rewards.similarity import SimilarityReward, kernel_terms
from ebft.rollout.records import Contexts, Features, Rollouts, Terms
from ebft.rollout.streams import context_seeds
from ebft.scoring import kernels
from ebft.scoring.kernels import WITH_BANDWIDTH

Name = Literal["linear", "cosine", "rbf", "multi_rbf", "laplace", "energy", "polynomial"]
PLAIN = {"linear": kernels.linear, "cosine": kernels.cosine, "energy": kernels.energy}


class KernelScore(SimilarityReward):
    """r_j = α_a · 2 k(φ_j, φ_y) − α_d · 2/(n−1) Σ_{j'≠j} k(φ_j, φ_j').

    The policy gradient descends E_c MMD²_k between rollouts and ground truth. A characteristic
    kernel (rbf, multi_rbf, laplace, energy) matches the whole distribution of φ, where
    `feature_matching` matches only its mean.
    """

    kernel: Name = Field("rbf", description="k")
    bandwidth: Annotated[float, Field(gt=0)] | Literal["median"] = Field(
        "median",
        description="h of rbf, multi_rbf and laplace; median: of the distances between this "
        "step's references",
    )
    degree: int = Field(2, ge=1, description="for the polynomial kernel (x·y + offset)^degree")
    offset: float = Field(1.0, ge=0, description="for the polynomial kernel")

    def claim(self) -> Claim:
        if self.alignment != self.diversity:
            return Claim(False, "alignment ≠ diversity: the score is not proper")
        if self.bandwidth == "median" and self.kernel in WITH_BANDWIDTH:
            return Claim(False, "bandwidth = median depends on the references that it scores")
        return Claim(True, "its expected policy gradient is that of the kernel score, −∇MMD²")

    @model_validator(mode="after")
    def _options_are_of_this_kernel(self) -> Self:
        options = ["bandwidth"] if self.kernel not in WITH_BANDWIDTH else []
        if self.kernel != "polynomial":
            options += ["degree", "offset"]
        for name in options:
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise ValueError(f"{name} = {value}: kernel {self.kernel} has none; leave it out")
        return self

    def build(self, resources: Resources) -> KernelScoreReward:
        return KernelScoreReward(self, resources.processes)


class KernelScoreReward:
    """`KernelScore` in one of several processes; all of them use the same bandwidth."""

    def __init__(self, options: KernelScore, processes: Processes = ONE_PROCESS) -> None:
        self._options, self._processes = options, processes

    def __call__(self, rollouts: Rollouts, features: Features) -> Terms:
        options, bandwidth = self._options, self._options.bandwidth
        if bandwidth == "median" and options.kernel in WITH_BANDWIDTH:
            bandwidth = kernels.median_distance(self._references(features, rollouts.contexts))
        kernel = make_kernel(options, bandwidth)
        return kernel_terms(
            features, kernel, kernel, alignment=options.alignment, diversity=options.diversity
        )

    def _references(self, features: Features, contexts: Contexts) -> Float[Tensor, "N D"]:
        """The references of all processes, in an order that does not depend on their division."""
        references = features.references.flatten(0, 1)
        seeds = context_seeds(contexts, seed=0, step=0)
        order = seeds.repeat_interleave(len(references) // len(contexts)).to(references.device)
        order = self._processes.gather(order).argsort(stable=True)
        return self._processes.gather(references)[order]


def make_kernel(options: KernelScore, bandwidth: float | Literal["median"]) -> kernels.Kernel:
    """Returns k; `bandwidth` is a number if k has one."""
    if options.kernel == "polynomial":
        return partial(kernels.polynomial, degree=options.degree, offset=options.offset)
    if options.kernel not in WITH_BANDWIDTH:
        return PLAIN[options.kernel]
    assert bandwidth != "median", "the caller computes the median of the references"
    return partial(WITH_BANDWIDTH[options.kernel], bandwidth=bandwidth)
