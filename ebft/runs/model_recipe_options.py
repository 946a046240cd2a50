"""What recipes about a model and documents share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from ebft.config.recipe import RecipeOptions
from ebft.data.documents import DocumentOptions
from ebft.errors import UserError
from ebft.evaluation.options import EvaluationOptions
from ebft.models.options import ModelOptions
from ebft.parts import Part, part_of


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

    def missing(self) -> list[str]:
        from ebft.models.embedded import EMBEDDED, find_embedded
        from ebft.models.load import model_folder  # with torch, for which others need not wait

        found = []
        try:
            if self.model.path == EMBEDDED:
                find_embedded()
            else:
                model_folder(self.model)
        except UserError as error:
            found.append(str(error))
        sources = {"data": self.data}
        sources |= {
            f"evaluation.sets.{i}.data": it.data for i, it in enumerate(self.evaluation.sets)
        }
        for key, source in sources.items():
            for name in type(source).model_fields:
                path = getattr(source, name)
                if isinstance(path, Path) and not path.exists():
                    found.append(f"{key}.{name} = {path}: no such file or folder")
        return found + self.missing_for_parts()

    def missing_for_parts(self) -> list[str]:
        """One line for each part and each evaluator that needs what is not on this machine."""
        parts = self.parts() | self.evaluation.parts()
        return [f"{key}: {what}" for key, part in parts.items() if (what := part.missing())]

    def parts(self) -> dict[str, Part]:
        """The parts that there are by their key path, for checks that concern them all."""
        return {"data": self.data, "plan": self.plan}
