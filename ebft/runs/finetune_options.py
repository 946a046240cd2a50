"""The schema of a fine-tuning recipe: one field a section, each validated by its own component."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from ebft.config.kinds import LoggerComponent, OptimizerComponent, ScheduleComponent
from ebft.config.recipe import Job
from ebft.distributed.parallel import ParallelOptions
from ebft.evaluation.options import RunEvaluationOptions
from ebft.interfaces import uses_features
from ebft.objective import ObjectiveOptions
from ebft.parts import Options, Part, part_of
from ebft.runs.checks import find_problems
from ebft.runs.model_recipe_options import ModelRecipeOptions

if TYPE_CHECKING:
    from ebft.plugins import Registry


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
    """When the run is saved, which checkpoints are kept, and which one a run goes on from."""

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
        description="auto: go on from the newest whole checkpoint in output_dir, if there is one; "
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


class FineTuneOptions(ModelRecipeOptions):
    """A fine-tuning recipe: `recipe: finetune`.

    With sampler, reward and baseline it is EBFT, or RLVR if the reward uses no features; without
    all three it is SFT, on the documents that the plan accepts.
    """

    several_processes: ClassVar[bool] = True

    sampler: Annotated[Part | None, part_of("samplers", optional=True)] = Field(
        None, description="null, with reward and baseline: no rollouts, SFT"
    )
    feature_map: Annotated[Part | None, part_of("feature_maps", optional=True)] = Field(
        None, description="null: for rewards that use no features"
    )
    transforms: tuple[Annotated[Part, part_of("transforms")], ...] = ()
    reward: Annotated[Part | None, part_of("rewards", optional=True)] = None
    baseline: Annotated[Part | None, part_of("baselines", optional=True)] = None
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
    metric_loggers: tuple[LoggerComponent, ...] = ()
    parallel: ParallelOptions = ParallelOptions()

    @property
    def uses_features(self) -> bool:
        """Whether features are computed in training."""
        return self.reward is not None and uses_features(self.reward)

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

    def problems(self) -> list[str]:
        return find_problems(self)

    def estimate(self) -> str:
        from ebft.runs.dry_run import estimate_table

        return estimate_table(self)

    def when_memory_is_short(self) -> str:
        from ebft.runs.memory import describe_least_need

        return describe_least_need(self)

    def build(self, registry: Registry, *, source: Path) -> Job:
        from ebft.runs.finetune import FineTune

        return FineTune(self, registry, source=source)
