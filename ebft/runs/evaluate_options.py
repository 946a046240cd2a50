"""The schema of `recipe: evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from ebft.config.recipe import Job
from ebft.evaluation.harness import HarnessOptions
from ebft.runs.model_recipe_options import ModelRecipeOptions

if TYPE_CHECKING:
    from ebft.plugins import Registry


class EvaluateOptions(ModelRecipeOptions):
    """Measures a model without training it: `recipe: evaluate`."""

    micro_batch: PositiveInt = Field(
        4, description="documents put through a network at a time; changes memory, not results"
    )
    harness: HarnessOptions | None = Field(
        None, description="tasks of lm-evaluation-harness; null: none"
    )

    def problems(self) -> list[str]:
        found = []
        if not self.evaluation.anything() and self.harness is None:
            found.append("evaluation.evaluators: is empty, so there is nothing to do")
        if self.model.lora is not None:
            found.append(
                "model.lora: an evaluation adds no adapter; leave it out, and give a checkpoint's "
                "own as model.path"
            )
        return found

    def when_memory_is_short(self) -> str:
        fewer = f"micro_batch={self.micro_batch // 2}, or " if self.micro_batch > 1 else ""
        return f"set {fewer}a smaller documents.length or another model.path"

    def build(self, registry: Registry, *, source: Path) -> Job:
        from ebft.runs.evaluate import Evaluate

        return Evaluate(self, registry, source=source)
