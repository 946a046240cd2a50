"""The options of the recipes that run a model: one field for each section of the file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ebft.checkpoints.hub import HubOptions
from ebft.config.class_kinds import LoggerComponent, OptimizerComponent, ScheduleComponent
from ebft.config.recipe import RecipeOptions
from ebft.data.documents import DocumentOptions
from ebft.distributed.parallel import ParallelOptions
from ebft.evaluation.harness import HarnessOptions
from ebft.evaluation.options import EvaluationOptions, RunEvaluationOptions
from ebft.models.options import ModelOptions
from ebft.options import Options
from ebft.parts.kinds import BaselinePart, FeatureMapPart, RewardPart, SamplerPart
from ebft.parts.part import Part, part_of
from ebft.training.objective import ObjectiveOptions


class StepOptions(Options):
    """The number of optimizer steps, their documents, and how they are computed."""

    steps: PositiveInt = Field(description="optimizer steps")
    documents_per_step: PositiveInt = Field(description="documents whose gradients make one step")
    micro_batch: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="the most documents in one forward pass: this many of the longest, or more "
        "shorter ones with as many tokens; at most those that a process has of a step. It changes "
        "memory, not results. auto: as many as fit into the free memory by the estimate of "
        "--dry-run",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="keep only each layer's input and recompute the layer in backward: much less "
        "memory, a third more compute; changes no result",
    )
    keep_logits: bool | Literal["auto"] = Field(
        "auto",
        description="keep a micro-batch's logits for backward instead of computing them again: "
        "less time, and 4 bytes for each token and entry of the vocabulary; changes no result. "
        "auto: if they fit into the free memory too, by the estimate of --dry-run",
    )
    compile: bool = Field(
        False,
        description="torch.compile the decoder's layers: less memory and a little less time, after "
        "half a minute of compiling; the same results to rounding",
    )
    sample_ahead: Literal[1] | None = Field(
        None,
        description="1: sample a step's rollouts while the step before it trains, from the weights "
        "that it starts with. They are one step off-policy, so objective.importance.level must not "
        "be off, and the sampler needs its own copy of the weights; null: sample each step's from "
        "its own weights",
    )
    clip_grad_norm: float = Field(1.0, gt=0, description="larger gradient norms are clipped to it")
    show_rollouts_every: PositiveInt | None = Field(
        10, description="steps between tables of rollouts and their references; null: none"
    )
    measure_gradients_every: PositiveInt | None = Field(
        None,
        description="steps between measurements of the size and noise of the gradients of the "
        "policy-gradient loss and of γ·CE; each costs as much as a step; null: never",
    )

    def largest_micro_batch(self, processes: int = 1) -> int:
        """The most documents of a micro-batch: `micro_batch`, but not more than each process has of
        a step; for auto, all that it has."""
        each = self.documents_per_step // processes
        return each if self.micro_batch == "auto" else min(self.micro_batch, each)


class CheckpointOptions(Options):
    """When checkpoints are saved, which are kept, and which one a run resumes from."""

    every: PositiveInt | None = Field(
        None, description="optimizer steps between checkpoints; null: only the last"
    )
    keep: PositiveInt = Field(2, description="newest checkpoints to keep")
    best: str | None = Field(
        None,
        description="also keep the checkpoint with the best value of this held-out measurement, "
        "e.g. held-out CE, among those that were evaluated",
    )
    best_is: Literal["lowest", "highest"] = Field(
        "lowest", description="which value of `best` is the best"
    )
    grace: float = Field(
        20.0,
        gt=0,
        description="seconds that a step may take to finish after SIGTERM; then it is interrupted, "
        "and the step before it is saved",
    )
    resume: str | None = Field(
        None,
        description="auto: resume from the newest undamaged checkpoint in output_dir, if there is "
        "one; or the folder of a checkpoint; null: start from the beginning",
    )
    may_differ: tuple[str, ...] = Field(
        (),
        description="keys that may differ from the recipe of the resumed checkpoint although they "
        "change the mathematics, e.g. optimizer.lr; a section means all its keys",
    )
    merge_adapter: bool = Field(
        False,
        description="with model.lora, save the whole model with the adapter merged into it, for "
        "AutoModelForCausalLM; false: the adapter alone, for PeftModel",
    )
    hub: HubOptions | None = Field(
        None,
        description="uploads checkpoints to the Hugging Face Hub; null: they stay here, as those "
        "of a study's runs always do",
    )


class ModelRecipeOptions(RecipeOptions):
    """The options that fine-tuning and evaluation share: a model, and documents."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data order and rollouts")
    model: ModelOptions
    data: Annotated[Part, part_of("data")]
    documents: DocumentOptions
    plan: Annotated[Part, part_of("plans")] = Field(
        description="chooses the anchors of documents, and which documents are accepted: methods "
        "with and without rollouts train on the same ones"
    )
    evaluation: EvaluationOptions = EvaluationOptions()

    def parts(self) -> dict[str, Part]:
        """The parts that the recipe has, by key."""
        return {"data": self.data, "plan": self.plan}

    def missing_for_parts(self) -> list[str]:
        """One line for each part and evaluator that needs something that this machine lacks."""
        parts = self.parts() | self.evaluation.parts()
        return [f"{key}: {what}" for key, part in parts.items() if (what := part.missing())]


class EvaluateOptions(ModelRecipeOptions):
    """Measures a model without training it: `recipe: evaluate`."""

    micro_batch: PositiveInt = Field(
        4, description="documents in one forward pass; changes memory, not results"
    )
    harness: HarnessOptions | None = Field(
        None, description="tasks of lm-evaluation-harness; null: none"
    )


class FineTuneOptions(ModelRecipeOptions):
    """A fine-tuning recipe: `recipe: finetune`.

    With sampler, reward and baseline the reward names the method, such as EBFT or RLVR.
    Without the three it is SFT, on the documents that the plan accepts.
    """

    sampler: Annotated[SamplerPart | None, part_of("samplers", optional=True)] = Field(
        None, description="null, together with reward and baseline: no rollouts (SFT)"
    )
    feature_map: Annotated[FeatureMapPart | None, part_of("feature_maps", optional=True)] = Field(
        None, description="null: for rewards that use no features"
    )
    transforms: tuple[Annotated[Part, part_of("transforms")], ...] = ()
    reward: Annotated[RewardPart | None, part_of("rewards", optional=True)] = None
    baseline: Annotated[BaselinePart | None, part_of("baselines", optional=True)] = None
    require_unbiased: bool = Field(
        False,
        description="refuse parts that bias the policy gradient, or do not say whether they do",
    )
    objective: ObjectiveOptions
    evaluation: RunEvaluationOptions = RunEvaluationOptions()
    optimizer: OptimizerComponent
    lr_scheduler: ScheduleComponent | None = Field(
        None, description="null: the learning rate is constant"
    )
    training: StepOptions
    checkpoint: CheckpointOptions = CheckpointOptions()
    metric_loggers: tuple[LoggerComponent, ...] = Field(
        (), description="further metric loggers; metrics.jsonl is always written"
    )
    parallel: ParallelOptions = ParallelOptions()

    def missing_for_parts(self) -> list[str]:
        lora = self.model.lora
        return super().missing_for_parts() + ([] if lora is None else lora.missing())

    @property
    def uses_features(self) -> bool:
        """Whether training computes features."""
        return self.reward is not None and self.reward.uses_features()

    @property
    def method(self) -> str:
        """The name of the method: SFT, or what the reward calls it, such as RLVR or EBFT."""
        return "SFT" if self.reward is None else self.reward.method()

    def parts(self) -> dict[str, Part]:
        named: dict[str, Part | None] = {
            **super().parts(),
            "sampler": self.sampler,
            "feature_map": self.feature_map,
            "reward": self.reward,
            "baseline": self.baseline,
        }
        named |= {f"transforms.{i}": part for i, part in enumerate(self.transforms)}
        return {key: part for key, part in named.items() if part is not None}

    def same_results(self) -> list[str]:
        """The keys of the parts' options that change results by rounding only."""
        return [f"{key}.{name}" for key, part in self.parts().items() for name in part.same_results]
