"""What a run left in its folder: figures as data frames, pictures, the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebft.checkpoints.folder import Checkpoints
from ebft.config.read import read_yaml
from ebft.errors import UserError
from ebft.evaluation.history import Evaluations
from ebft.evaluation.lines import DocumentsLine, Line, read_evaluations
from ebft.runs.folder import RECIPE, OutputFolder
from ebft.runs.metrics_log import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Run:
    """A run's `output_dir`: everything is read from its files when it is asked for.

    Raises `UserError` if the folder has no run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = _folder(folder)
        self._files = OutputFolder(self.folder)
        if not (self.folder / RECIPE).is_file():
            raise UserError(f"{self.folder}: there is no run in it, because it has no {RECIPE}")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The recipe with all its defaults."""
        return read_yaml(self.folder / RECIPE)

    @cached_property
    def steps(self) -> DataFrame:
        """The metrics of each step: a row for each number of steps done, a column for each name."""
        from pandas import DataFrame

        rows: dict[int, dict[str, float]] = {}
        for line in read_metrics(self._files.metrics):
            rows.setdefault(line.step, {}).update(line.figures)
        frame = DataFrame.from_dict(rows, orient="index")
        frame.index.name = "step"
        return frame

    @cached_property
    def evaluations(self) -> DataFrame:
        """The held-out figures: a row for each figure and number of steps done.

        `half_width_95` is that of the mean; `change` is from the first evaluation, paired document
        by document, with a 95 % half-width of its own. A half-width is NaN if there are too few
        clusters of documents for an interval.
        """
        from pandas import DataFrame

        kept = Evaluations.of(self._lines)
        changes = {name: dict(kept.changes(name)) for name in (kept.first if len(kept) else ())}
        rows = []
        for line in self._lines:
            change = changes.get(line.name, {}).get(line.step)
            rows.append(
                {
                    "step": line.step,
                    "name": line.name,
                    "mean": line.mean,
                    "half_width_95": line.half_width_95,
                    "change": None if change is None else change.mean,
                    "change_half_width_95": None
                    if change is None or change.too_few
                    else change.half_width,
                    "unit": line.unit,
                    "documents": line.documents if isinstance(line, DocumentsLine) else None,
                    "set": line.set,
                }
            )
        return DataFrame(rows)

    @cached_property
    def _lines(self) -> list[Line]:
        return read_evaluations(self._files.evaluations) if self._files.evaluations.exists() else []

    def plot(self) -> Figure:
        """Draws held-out figures and training metrics over the steps, as in `training.png`.

        Raises `UserError` if nothing was measured.
        """
        from ebft.report.curves import plot_curves

        kept = Evaluations.of(self._lines)
        if not len(kept):
            raise UserError(f"{self.folder}: no held-out figure was measured in this run")
        return plot_curves(kept, [line.figures for line in read_metrics(self._files.metrics)])

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint. Raises `UserError` if there is none."""
        saved = Checkpoints(self._files.checkpoints, keep=1).saved()
        if not saved:
            raise UserError(f"{self.folder}: has no checkpoint yet")
        return saved[-1]

    @cached_property
    def policy(self) -> PreTrainedModel:
        """The policy of the newest checkpoint, as transformers loads it: for `generate`."""
        from ebft.models.load import load_policy
        from ebft.models.options import resolve_device

        options = self._model()
        policy, _ = load_policy(options)
        return policy.to(resolve_device(options.device))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's tokenizer."""
        from ebft.models.load import load_tokenizer

        return load_tokenizer(self._model())

    def sample(
        self,
        prompts: Sequence[Any] | None = None,
        *,
        base: str | None = None,
        n: int | None = None,
        contexts: int = 8,
        overrides: Mapping[str, Any] | None = None,
    ) -> DataFrame:
        """Samples from the newest checkpoint and from its base model, as `ebft sample` does.

        Returns a row for each rollout: `model` is `base` or `checkpoint`; `alignment` and `reward`
        are missing without a reference. `prompts` are texts or dicts as in a file of prompts; by
        default the last contexts of so many held-out documents. A part whose class is neither in
        a plug-in nor in `__main__` is passed in `overrides` again. Raises `UserError`.
        """
        from pandas import DataFrame

        from ebft.api.given import changes, checked_rows, modules_of
        from ebft.config.load import load_recipe
        from ebft.data.prompts import examples_of
        from ebft.parts.registry import default_registry
        from ebft.sample.sampling import sample_both
        from ebft.sample.two_models import recipe_of

        for name, count in (("n", n), ("contexts", contexts)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise UserError(f"{name} = {count}: give a number of 1 or more")
        asked = None
        if prompts is not None:
            asked = examples_of(checked_rows(prompts, key="prompts"), "prompts", "prompts")
        checkpoint = str(self.checkpoint)
        wanted = changes(
            {} if overrides is None else overrides, default_registry(), origin="in the call"
        )
        importable = {"__main__", *modules_of([overrides or {}])}
        recipe = load_recipe(recipe_of(checkpoint), wanted, importable=importable)
        samples = sample_both(
            recipe.options, recipe.registry, checkpoint=checkpoint, base=base, prompts=asked, n=n,
            count=contexts,
        )  # fmt: skip
        return DataFrame(samples.rows())

    def _model(self) -> Any:
        from ebft.models.options import ModelOptions

        of_run = ModelOptions.model_validate(self.recipe["model"])
        base = of_run.base or of_run.path  # needed if the checkpoint is an adapter
        return of_run.model_copy(
            update={
                "path": str(self.checkpoint), "base": base, "from_config": None,
                "attention": "rows", "lora": None,
            }
        )  # fmt: skip


def compare(*runs: Run | str | Path) -> DataFrame:
    """Compares the last held-out figures of runs, as `ebft compare` does.

    `difference` is from the first run, paired document by document, with a 95 % half-width; `note`
    says why figures cannot be paired. Raises `UserError` for fewer than two runs, and for runs that
    share no figure.
    """
    from pandas import DataFrame

    from ebft.report.compare import Unpaired, paired_difference, shared_names
    from ebft.report.read_runs import read_runs

    if len(runs) < 2:
        raise UserError(f"compare: needs two runs or more, and got {len(runs)}")
    found = read_runs([run.folder if isinstance(run, Run) else _folder(run) for run in runs])
    first, rows = found[0], []
    for name in shared_names(found):
        for run in found:
            line = run.figures[name]
            row = {
                "name": name, "run": run.label, "step": line.step, "mean": line.mean,
                "half_width_95": line.half_width_95, "unit": line.unit,
            }  # fmt: skip
            if run is not first:
                paired = paired_difference(first.figures[name], line)
                if isinstance(paired, Unpaired):
                    row["note"] = paired.value
                else:
                    row["difference"] = paired.mean
                    row["difference_half_width_95"] = None if paired.too_few else paired.half_width
            rows.append(row)
    return DataFrame(rows)


def _folder(given: object) -> Path:
    if not isinstance(given, str | PathLike):
        raise UserError(f"{given!r}: not a run; give the path of its output_dir, or a Run")
    return Path(given).expanduser()
