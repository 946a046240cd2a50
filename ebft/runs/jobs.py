"""The jobs of the recipes that run a model: `finetune` and `evaluate`.

Modules that a job needs only to run are imported when it runs, so that recipes are checked quickly.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

from ebft.config.recipe import Job
from ebft.distributed.processes import Launch
from ebft.errors import EXPLAINED, MemoryShortError, UserError, is_out_of_memory
from ebft.parts.packages import untested
from ebft.runs.checks import find_problems
from ebft.runs.options import EvaluateOptions, FineTuneOptions, ModelRecipeOptions

IMPORTING = "importing torch and transformers …"
"""The first line of a run: it takes seconds, or half a minute from a slow disk."""

log = logging.getLogger("ebft")


class FineTune(Job[FineTuneOptions]):
    """Fine-tunes a policy: EBFT, RLVR or SFT."""

    schema: ClassVar[type[FineTuneOptions]] = FineTuneOptions
    several_processes: ClassVar[bool] = True

    def problems(self) -> list[str]:
        return find_problems(self.options)

    def missing(self) -> list[str]:
        hub = self.options.checkpoint.hub
        return [*not_on_this_machine(self.options), *(() if hub is None else hub.missing())]

    def estimate(self) -> str:
        from ebft.models.options import resolve_device
        from ebft.runs.estimate import StepEstimate, memory_need
        from ebft.runs.memory import MemoryBudget, free_memory

        options, micro_batch = self.options, self.options.training.largest_micro_batch()
        estimate = StepEstimate.of(options)
        if (
            options.training.micro_batch == "auto"
        ):  # with a number, the device need not be on this machine
            free = free_memory(resolve_device(options.model.device))
            budget = MemoryBudget(options.training, memory_need(options), free)
            micro_batch = budget.choose_micro_batch()
        return estimate.table(micro_batch)

    def advice(self) -> str:
        """How much memory the smallest micro-batch needs, and which options to lower."""
        from ebft.runs.estimate import memory_need
        from ebft.runs.memory import describe_need

        need = memory_need(self.options, processes=Launch.of_environment().size)
        adapter = "" if self.options.model.lora is not None else "model.lora={rank: 16}, or "
        return (
            f"{describe_need(need, 1)}; set {adapter}a smaller documents.length or another "
            "model.path"
        )

    def run(self) -> bool:
        log.info(IMPORTING)
        from ebft.runs.finetune import FineTuning

        with FineTuning(self.options, self.registry, source=self.source) as run:
            return run.train()


class Evaluate(Job[EvaluateOptions]):
    """Measures a model on held-out documents, without training it."""

    schema: ClassVar[type[EvaluateOptions]] = EvaluateOptions
    several_processes: ClassVar[bool] = True

    def problems(self) -> list[str]:
        found, options = [], self.options
        if not options.evaluation.anything() and options.harness is None:
            found.append("evaluation.evaluators: is empty, so there is nothing to do")
        if options.model.lora is not None:
            found.append(
                "model.lora: an evaluation does not add an adapter; leave it out, and set "
                "model.path to a checkpoint with one"
            )
        return found

    def missing(self) -> list[str]:
        return not_on_this_machine(self.options)

    def advice(self) -> str:
        size = self.options.micro_batch
        fewer = f"micro_batch={size // 2}, or " if size > 1 else ""
        return f"set {fewer}a smaller documents.length or another model.path"

    def run(self) -> bool:
        log.info(IMPORTING)
        from ebft.runs.evaluate import evaluate

        evaluate(self.options, self.registry)
        return True


def not_on_this_machine(options: ModelRecipeOptions) -> list[str]:
    """One line for the model, each file of a data source and each package that is missing here."""
    from ebft.models.embedded import EMBEDDED, find_embedded
    from ebft.models.folders import model_folder

    found = []
    try:
        if options.model.path == EMBEDDED:
            find_embedded()
        elif options.model.from_config is None:
            model_folder(options.model)
    except UserError as error:
        found.append(str(error))
    sources = {"data": options.data}
    sources |= {
        f"evaluation.sets.{i}.data": it.data for i, it in enumerate(options.evaluation.sets)
    }
    for key, source in sources.items():
        for name in type(source).model_fields:
            path = getattr(source, name)
            if isinstance(path, Path) and not path.exists():
                found.append(f"{key}.{name} = {path}: no such file or folder")
    return found + options.missing_for_parts()


def run_job(job: Job[Any]) -> bool:
    """Runs a job. Returns True if it is complete, False if the user stopped it.

    Raises the errors of the job, and `MemoryShortError` if it runs out of memory.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the run has its own bar, and loading weights takes a second
    if (said := untested()) is not None:
        log.warning("%s; `ebft doctor` lists the tested versions", said)
    try:
        return job.run()
    except EXPLAINED:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryShortError(f"out of memory: {job.advice()}") from error
