"""The runs of a study: loads and validates the recipe of every arm, and joins identical ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ebft.config.class_kinds import COSINE, ScheduleComponent
from ebft.config.dump import fingerprint
from ebft.config.load import Recipe, load_recipe
from ebft.config.overrides import Override, override
from ebft.config.read import read_recipe
from ebft.config.recipe import JOBS, find_job
from ebft.errors import UserError
from ebft.parts.registry import default_registry
from ebft.runs.checks import problems_in
from ebft.runs.jobs import not_on_this_machine
from ebft.runs.options import FineTuneOptions
from ebft.study.arms import Arm, arms
from ebft.study.folder import file_name
from ebft.study.options import StudyOptions

NOT_IDENTITY = ("output_dir", "overwrite", "seed")
"""Keys of a recipe that are not part of its fingerprint."""
STEP_LOG = {"_component_": "ebft.study.step_log.StepLog", "file": "run/logs/steps.jsonl"}
"""The metric logger in the recipes of older versions, which did not write metrics.jsonl. It is part
of the fingerprint, because otherwise a study would repeat runs of older versions."""
COSINE_THEN = "torchtune.training.get_cosine_schedule_with_warmup"
"""The schedule in the recipes of older versions. Transformers' function is the same, and a
fingerprint has this name for both, for the same reason."""


@dataclass(frozen=True, slots=True)
class PlannedArm:
    """An arm with its validated options; `arms` are all arms with the same recipe, and `start` is
    the arm whose trained model it starts from."""

    arms: Sequence[Arm]
    fingerprint: str
    options: FineTuneOptions
    overrides: Sequence[Override]
    start: PlannedArm | None = None

    @property
    def label(self) -> str:
        return self.arms[0].label

    @property
    def steps(self) -> int:
        return self.options.training.steps

    def tflop(self) -> float:
        """TFLOP of training one run. Raises `ValueError` if it cannot be estimated."""
        from ebft.runs.estimate import StepEstimate

        return StepEstimate.of(self.options).flops() * self.steps / 1e12

    def recipe(
        self, *, seed: int, output_dir: Path, remember: Path, start: Path | None = None
    ) -> Recipe:
        """The recipe of one of its runs; `remember` is for measurements before the first step, and
        `start` is the checkpoint that it starts from."""
        base = self.arms[0].base
        assert base is not None, "planned arms have a base recipe"
        of_run = {
            "seed": seed,
            "output_dir": str(output_dir),
            "evaluation.remember": str(remember),
            **_where_plugins_are(self.options.plugins),
        }
        if start is not None:
            model = self.options.model
            of_run |= {"model.path": str(start), "model.base": model.base or model.path}
        return load_recipe(base, [*self.overrides, *_given(of_run)])


@dataclass(frozen=True, slots=True)
class Run:
    """An arm with a seed; `name` is that of its folder and contains the recipe's fingerprint."""

    arm: PlannedArm
    seed: int

    @property
    def name(self) -> str:
        return f"{file_name(self.arm.label)}-seed{self.seed}-{self.arm.fingerprint}"

    @property
    def start(self) -> Run | None:
        """The run whose trained model it starts from."""
        return None if self.arm.start is None else Run(self.arm.start, self.seed)


def plan_arms(options: StudyOptions) -> list[PlannedArm]:
    """Loads and validates every arm's recipe. Raises `UserError` with a line for each mistake."""
    planned: dict[str, PlannedArm] = {}
    mistakes: list[str] = []
    for arm in arms(options):
        try:
            found = _plan(arm, options, list(planned.values()))
        except UserError as error:
            mistakes += [f"arm {arm.label!r}: {line}" for line in str(error).splitlines()]
            continue
        same = planned.get(found.fingerprint)
        planned[found.fingerprint] = (
            found if same is None else replace(same, arms=[*same.arms, *found.arms])
        )
    if mistakes:
        raise UserError(*dict.fromkeys(mistakes))
    return list(planned.values())


def plan_runs(options: StudyOptions) -> list[Run]:
    """All runs, seed by seed, so that a study that is stopped early has complete comparisons."""
    planned = plan_arms(options)
    return [Run(arm, seed) for seed in options.seeds for arm in planned]


def missing_of(planned: Iterable[PlannedArm]) -> list[str]:
    """One line for each thing that the arms need and that this machine lacks."""
    checked: list[object] = []
    found: dict[str, None] = {}
    for arm in planned:
        options = arm.options
        names = (options.model, options.data, options.evaluation.sets)
        if names not in checked:  # most arms differ in other sections
            checked.append(names)
            found |= dict.fromkeys(not_on_this_machine(options))
    return list(found)


def find_problems(options: StudyOptions) -> list[str]:
    """One line for each problem of the study, and for each mistake in the recipes of its runs."""
    try:
        return list(_problems(options))
    except UserError as error:
        return str(error).splitlines()


def _problems(options: StudyOptions) -> Iterator[str]:
    if options.overwrite:
        yield (
            "overwrite = true: a study continues where it stopped; delete its folder to start again"
        )
    if options.plugins:
        yield "plugins: a study loads no plug-ins itself; set `overrides: {plugins: [...]}`"
    if len(set(options.seeds)) < len(options.seeds):
        yield f"seeds = {list(options.seeds)}: a seed is given twice; leave it out once"
    bases = [options.base_recipe, *(it.base_recipe for it in options.variants.values())]
    if options.base_recipe is None and (not options.variants or None in bases[1:]):
        yield "base_recipe: missing; give the recipe of the runs"
        return
    for base in dict.fromkeys(filter(None, bases)):
        if base.is_file() and not _may_be_fine_tuning(base):
            yield f"base_recipe = {base}: its recipe must be a fine-tuning one"
            return
    if missing := [str(base) for base in dict.fromkeys(bases) if base and not base.is_file()]:
        yield f"base_recipe = {', '.join(missing)}: no such file"
        return
    planned = plan_arms(options)
    yield from dict.fromkeys(
        f"processes = {options.processes}: {found.arms[0].label}: {problem}"
        for found in planned
        for problem in problems_in(options.processes, found.options)
    )
    labels = [arm.label for found in planned for arm in found.arms]
    if options.reference is not None and options.reference not in labels:
        yield f"reference = {options.reference}: no such arm; there are: {', '.join(labels)}"
    if options.budget.tflop is not None:
        total = len(options.seeds) * sum(found.tflop() for found in planned)
        if total > options.budget.tflop:
            yield (
                f"budget.tflop = {options.budget.tflop:g}: the {len(planned)} arms with "
                f"{len(options.seeds)} seeds take {total:,.0f} TFLOP by the cost model; use fewer "
                "steps, arms or seeds"
            )


def _may_be_fine_tuning(base: Path) -> bool:
    """False for ebft's other recipes; recipes of plug-ins are checked when they are loaded."""
    name = read_recipe(base).tree.get("recipe")
    if name not in JOBS:
        return True
    return issubclass(find_job(name, base, default_registry()).schema, FineTuneOptions)


def _start(arm: Arm, earlier: Sequence[PlannedArm]) -> PlannedArm | None:
    if arm.starts_from is None:
        return None
    for planned in earlier:
        if any(one.label == arm.starts_from for one in planned.arms):
            if planned.options.model.lora is not None:
                raise UserError(
                    f"starts_from = {arm.starts_from}: trains an adapter; set "
                    "overrides.model.lora=null for it, because the checkpoint of a whole model is "
                    "needed"
                )
            return planned
    labels = [one.label for planned in earlier for one in planned.arms]
    raise UserError(
        f"starts_from = {arm.starts_from}: is no arm before it; there are: "
        f"{', '.join(labels) or 'none'}"
    )


def _plan(arm: Arm, options: StudyOptions, earlier: Sequence[PlannedArm]) -> PlannedArm:
    assert arm.base is not None, "checked before"
    start = _start(arm, earlier)
    last: dict[str, object] = {"metric_loggers": []}
    if options.evaluation is not None:
        last["evaluation"] = options.evaluation
    overrides = _given(dict(arm.overrides)) + _given(last)
    overrides += _budget(arm, options, overrides)
    recipe = _load(arm, overrides)
    assert isinstance(recipe.options, FineTuneOptions)
    mark = fingerprint(
        recipe.options, recipe.registry,
        without=NOT_IDENTITY,
        and_also={
            "metric_loggers": [STEP_LOG],
            **_schedule_then(recipe.options.lr_scheduler),
            **({} if start is None else {"starts_from": start.fingerprint}),
        },
    )  # fmt: skip
    return PlannedArm([arm], mark, recipe.options, overrides, start)


def _schedule_then(schedule: ScheduleComponent | None) -> dict[str, object]:
    if schedule is None or schedule.path != COSINE:
        return {}
    return {"lr_scheduler": {"_component_": COSINE_THEN, **schedule.arguments}}


def _budget(arm: Arm, options: StudyOptions, overrides: Sequence[Override]) -> list[Override]:
    from ebft.runs.estimate import StepEstimate

    budget = options.budget
    steps = [budget.steps] if budget.steps is not None else []
    if budget.tflop_per_run is not None:
        recipe = _load(arm, overrides)
        assert isinstance(recipe.options, FineTuneOptions)
        try:
            each = StepEstimate.of(recipe.options).flops() / 1e12
        except ValueError as error:
            raise UserError(f"budget.tflop_per_run: cannot be applied: {error}") from error
        if (fitting := int(budget.tflop_per_run / each)) < 1:
            raise UserError(
                f"budget.tflop_per_run = {budget.tflop_per_run:g}: one step takes {each:.2f} TFLOP"
            )
        steps.append(fitting)
    return _given({"training.steps": min(steps)}) if steps else []


def _load(arm: Arm, overrides: Sequence[Override]) -> Recipe:
    assert arm.base is not None
    recipe = load_recipe(arm.base, [*overrides, *_given({"output_dir": "run"})])
    if not isinstance(recipe.options, FineTuneOptions):
        raise UserError(f"{arm.base}: recipe = {recipe.options.recipe}: must be a fine-tuning one")
    return recipe


def _where_plugins_are(plugins: Sequence[str]) -> dict[str, list[str]]:
    """The key `plugins` with absolute paths, because a run may start in another folder."""
    if not plugins:
        return {}
    return {"plugins": [str(Path(it).resolve()) if it.endswith(".py") else it for it in plugins]}


def _given(values: Mapping[str, object]) -> list[Override]:
    return [override(key, value, origin="its overrides") for key, value in values.items()]
