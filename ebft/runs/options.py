"""The options of the recipes that run a model: one field a section of the file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ebft.config.kinds import LoggerComponent, OptimizerComponent, ScheduleComponent
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
    """How many optimizer steps, and how many documents each one sees."""

    steps: PositiveInt = Field(description="optimizer steps")
    documents_per_step: PositiveInt = Field(description="documents whose gradients make one step")
    micro_batch: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="documents put through a network at a time: so many of the longest, or more "
        "shorter ones with no more tokens; changes memory, not results. auto: as many as the "
        "memory that is free has room for, by the estimate of --dry-run",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="keep each layer's input alone and compute the layer again in backward: much "
        "less memory, a third more work; changes no result",
    )
    compile: bool = Field(
        False,
        description="torch.compile the decoder's layers for forward and backward: less memory and "
        "a little less time, after half a minute of compiling; the same results to rounding",
    )
    clip_grad_norm: float = Field(1.0, gt=0, description="largest gradient norm; larger is scaled")
    show_rollouts_every: PositiveInt | None = Field(
        10, description="steps between tables of rollouts beside their references; null: none"
    )
    measure_gradients_every: PositiveInt | None = Field(
        None,
        description="steps between measurements of how large and how noisy the policy gradient "
        "and γ·CE are apart, each as costly as a step; null: never",
    )


class CheckpointOptions(Options):
    """When the run is saved, which checkpoints are kept, and which one a run resumes from."""

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
        description="seconds that a step has to finish after SIGTERM; then it is broken off, and "
        "the step before it saved",
    )
    resume: str | None = Field(
        None,
        description="auto: resume from the newest whole checkpoint in output_dir, if there is one; "
        "or a checkpoint's folder; null: start from the beginning",
    )
    may_differ: tuple[str, ...] = Field(
        (),
        description="keys that may differ from the recipe of the checkpoint that is resumed, "
        "though they change the mathematics, e.g. optimizer.lr; a section stands for its keys",
    )
    merge_adapter: bool = Field(
        False,
        description="with model.lora, save the whole model with the adapter merged into it, for "
        "AutoModelForCausalLM; false: the adapter alone, for PeftModel",
    )


class ModelRecipeOptions(RecipeOptions):
    """A recipe about one model and the documents of one data source."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of data order and rollouts")
    model: ModelOptions
    data: Annotated[Part, part_of("data")]
    documents: DocumentOptions
    plan: Annotated[Part, part_of("plans")] = Field(
        description="anchors of the documents; also which documents are accepted, so that methods "
        "with and without rollouts train on the same ones"
    )
    evaluation: EvaluationOptions = EvaluationOptions()

    def parts(self) -> dict[str, Part]:
        """The parts that there are by their key path, for checks that concern them all."""
        return {"data": self.data, "plan": self.plan}

    def missing_for_parts(self) -> list[str]:
        """One line for each part and each evaluator that needs what is not on this machine."""
        parts = self.parts() | self.evaluation.parts()
        return [f"{key}: {what}" for key, part in parts.items() if (what := part.missing())]


class EvaluateOptions(ModelRecipeOptions):
    """Measures a model without training it: `recipe: evaluate`."""

    micro_batch: PositiveInt = Field(
        4, description="documents put through a network at a time; changes memory, not results"
    )
    harness: HarnessOptions | None = Field(
        None, description="tasks of lm-evaluation-harness; null: none"
    )


class FineTuneOptions(ModelRecipeOptions):
    """A fine-tuning recipe: `recipe: finetune`.

    With sampler, reward and baseline it is EBFT, or RLVR if the reward uses no features; without
    all three it is SFT, on the documents that the plan accepts.
    """

    sampler: Annotated[SamplerPart | None, part_of("samplers", optional=True)] = Field(
        None, description="null, with reward and baseline: no rollouts, SFT"
    )
    feature_map: Annotated[FeatureMapPart | None, part_of("feature_maps", optional=True)] = Field(
        None, description="null: for rewards that use no features"
    )
    transforms: tuple[Annotated[Part, part_of("transforms")], ...] = ()
    reward: Annotated[RewardPart | None, part_of("rewards", optional=True)] = None
    baseline: Annotated[BaselinePart | None, part_of("baselines", optional=True)] = None
    require_unbiased: bool = Field(
        False,
        description="refuse parts whose policy gradient is biased, or whose author has not said",
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
        (), description="loggers that get the metrics beside metrics.jsonl, which is always written"
    )
    parallel: ParallelOptions = ParallelOptions()

    def missing_for_parts(self) -> list[str]:
        lora = self.model.lora
        return super().missing_for_parts() + ([] if lora is None else lora.missing())

    @property
    def uses_features(self) -> bool:
        """Whether features are computed in training."""
        return self.reward is not None and self.reward.uses_features()

    @property
    def method(self) -> str:
        """What this recipe does, by the name of the method: SFT, RLVR or EBFT."""
        if self.reward is None:
            return "SFT"
        return "EBFT" if self.uses_features else "RLVR"

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
