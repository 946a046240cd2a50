"""Recipe `finetune`: set up, measure, train, measure again, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import TypeVar

from transformers import set_seed

from ebft.checkpoints.digests import digest_documents, digest_weights
from ebft.checkpoints.folder import Checkpoints
from ebft.checkpoints.snapshot import About
from ebft.checkpoints.state import named_parts, restore_before_update
from ebft.config.dump import plain_options, resolved_yaml
from ebft.distributed.parallel import join
from ebft.errors import (
    MemoryShortError,
    NumericalError,
    PolicyIntactError,
    StorageError,
    UserError,
)
from ebft.evaluation.history import EvaluationSet, History
from ebft.evaluation.remembered import remembered
from ebft.models.load import resolve_device
from ebft.models.lora import cast_base
from ebft.models.probe import probe_tree
from ebft.plugins import Registry
from ebft.processes import Launch
from ebft.runs.blame import blame, named_evaluators
from ebft.runs.checks import find_problems_of_processes
from ebft.runs.describe import describe
from ebft.runs.finetune_options import FineTuneOptions
from ebft.runs.interrupt import TERMINATED, BrokenOffError, StopRequest, stop_on_signals
from ebft.runs.keeper import Keeper
from ebft.runs.measurements import Measurements, is_due
from ebft.runs.memory import describe_need, is_out_of_memory, memory_short
from ebft.runs.output import OutputFolder
from ebft.runs.progress import Watcher
from ebft.runs.setup import (
    make_documents,
    make_evaluation_sets,
    make_machinery,
    make_resources,
    memory_at_hand,
)
from ebft.runs.start import Start
from ebft.training.loop import Machinery, Step, train

log = logging.getLogger("ebft")
T = TypeVar("T")


class FineTune:
    """Fine-tunes a policy as a `FineTuneOptions` recipe says.

    `setup` raises `UserError` for what is wrong with the recipe's model, data or output folder;
    `run` raises `NumericalError`, `StorageError`, `MemoryShortError` and whatever parts raise,
    with a checkpoint saved if the policy is intact, and returns whether all steps were run. Of
    several processes, each does the same with its share of the documents and of the weights, and
    the main one writes and prints.
    """

    def __init__(self, options: FineTuneOptions, registry: Registry, *, source: Path) -> None:
        self._options, self._registry, self._source = options, registry, source
        self._recipe = plain_options(options, registry)
        self._output = OutputFolder(options.output_dir, overwrite=options.overwrite)
        self._checkpoints = Checkpoints(
            self._output.checkpoints, keep=options.checkpoint.keep, best=options.checkpoint.best_is
        )
        self._closing = ExitStack()

    def setup(self) -> None:
        """Loads the model and the data, builds the parts and claims the output folder."""
        self._join()
        self._load_model()
        sets = self._read_documents()
        self._probe_and_shard()
        options, documents = self._options, self._documents
        machinery = make_machinery(options, self._resources, documents.train.documents)
        if self._processes.is_main:
            self._start.claim(resolved_yaml(options, self._registry))
        self._watch()
        self._assemble(machinery, sets)
        describe(options, self._resources, documents, sets, free=self._free)

    def _join(self) -> None:
        """Meets the other processes, if there are any, and finds where the run starts."""
        options, launch = self._options, Launch.of_environment()
        if problems := find_problems_of_processes(options, launch.size):
            raise UserError("\n".join(f"{self._source}: {problem}" for problem in problems))
        set_seed(options.seed)
        self._processes = join(launch, options.parallel, resolve_device(options.model.device))
        self._start = Start(options, self._recipe, self._output, self._checkpoints, self._processes)

    def _load_model(self) -> None:
        options, resumed = self._options, self._start.resumed
        self._free = memory_at_hand(options, self._processes)
        self._resources = make_resources(options, self._processes)
        self._digests = {"base": digest_weights(self._resources.policy)}
        if options.model.base is not None:
            self._digests["base"] += " " + digest_weights(self._resources.load_base())
        if resumed is not None:
            resumed.load_weights(self._resources.policy)

    def _read_documents(self) -> list[EvaluationSet]:
        """Those to train on, and the sets that are measured: the same ones as before a resume."""
        options, resources = self._options, self._resources
        self._documents = make_documents(options, resources)
        sets = make_evaluation_sets(options, resources, self._documents.evaluated)
        self._digests["train"] = digest_documents(self._documents.train.documents)
        evaluated = [document for one in sets for document in one.documents]
        self._digests["held_out"] = digest_documents(evaluated)
        self._remembered = None
        if self._processes.size == 1:  # others might not see the file, and would wait for this one
            self._remembered = remembered(
                options, options.evaluation, self._registry, self._digests
            )
        if self._start.resumed is not None:
            self._start.resumed.check_digests(self._digests)
        return sets

    def _probe_and_shard(self) -> None:
        """Holds the tree to independent rows while the weights are whole and in float32, and then
        divides them."""
        resources, processes = self._resources, self._processes
        plan = self._options.plan.build(resources)
        gap = probe_tree(resources.policy, self._documents.train.documents, plan)
        log.info("a tree equals independent rows: log-probs differ by at most %.1g nats", gap)
        if processes.mesh is not None:
            from ebft.models.shard import shard

            shard(resources.policy, processes.mesh, resources.precision)
        elif self._options.model.lora is not None:
            cast_base(resources.policy, resources.precision)

    def _watch(self) -> None:
        options, processes = self._options, self._processes
        self._watcher = Watcher(
            steps=options.training.steps,
            loggers=[
                logger.instantiate() for logger in options.metric_loggers if processes.is_main
            ],
            label=options.method,
            tokenizer=self._resources.tokenizer,
            show_rollouts_every=options.training.show_rollouts_every,
            processes=processes,
        )
        self._closing.callback(self._watcher.close)

    def _assemble(self, machinery: Machinery, sets: Sequence[EvaluationSet]) -> None:
        """Puts together what runs and what is saved, at the step that the run goes on from."""
        options, resources = self._options, self._resources
        self._machinery, self._sets = machinery, sets
        self._history = History(
            sets, self._output.evaluations,
            micro_batch=resources.micro_batch, processes=self._processes,
        )  # fmt: skip
        self._keeper = Keeper(
            self._checkpoints, machinery, resources.tokenizer,
            partial(About, recipe=self._recipe, digests=self._digests),
            watcher=self._watcher, history=self._history, best=options.checkpoint.best,
            merge_adapter=options.checkpoint.merge_adapter,
        )  # fmt: skip
        self._measurements = Measurements(
            options, resources, self._history, self._watcher, self._remembered
        )
        if self._start.resumed is not None:
            self._keeper.restore(self._start.resumed, self._digests)

    def run(self) -> bool:
        """Runs the steps; Ctrl-C and SIGTERM stop them with a checkpoint saved.

        After SIGTERM it raises `SystemExit`, with the status that schedulers know.
        """
        options, done, last = self._options, self._start.step, self._options.training.steps
        try:
            self._fitting(lambda: self._measurements.begin(done))
        except KeyboardInterrupt:
            log.warning("stopped while measuring, before a step was done; %s", self._newest())
            raise
        if done == last:
            self._keeper.save(done)

        grace = options.checkpoint.grace
        with (
            stop_on_signals(grace=grace, at_rest=lambda: self._keeper.at_rest()) as stop,
            self._saving(),
        ):
            steps, stopping = self._train(range(done, last)), self._processes.any(bool(stop))
            while done < last and not stopping:
                with self._breakable(stop):
                    step = next(steps)
                done = step.done
                self._keeper.step_done(done)
                self._watcher.step(step)
                self._measurements.gradients(step)
                # Before the checkpoint, which has all figures up to its step.
                if self._measurements.due(done) and not self._processes.any(bool(stop)):
                    with self._breakable(stop):
                        self._measurements.held_out(done)
                stopping = self._processes.any(bool(stop))
                if stopping or done == last or is_due(done, options.checkpoint.every):
                    self._keeper.save(done)
                self._watcher.restart_clock()
        self._processes.close()
        if stop:
            log.warning("stopped after step %d; %s", done, self._newest())
            if stop.signal == SIGTERM:
                raise SystemExit(TERMINATED)
            return False
        if stopping and done < last:
            return False  # another process was asked
        self._closing.close()
        if self._processes.is_main:
            log.info("%s", self._newest())
            self._measurements.report(self._output)
        return True

    def _breakable(self, stop: StopRequest) -> AbstractContextManager[None]:
        """What SIGTERM may break off: nothing where other processes would wait for this one."""
        return stop.breakable() if self._processes.size == 1 else nullcontext()

    def _train(self, steps: range) -> Iterator[Step]:
        """`train`, whose first step decides how many documents fit into memory."""
        if steps:
            yield self._fitting(lambda: next(train(self._machinery, steps[:1])))
        yield from train(self._machinery, steps[1:])

    def _fitting(self, do: Callable[[], T]) -> T:
        """The result of `do`, with half the micro-batch as often as it runs out of memory.

        Raises `MemoryShortError` when that does not help.
        """
        while True:
            try:
                return do()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                # Processes must stay in step, and one that is out of memory is so by itself.
                alone = self._processes.size == 1
                if self._resources.micro_batch == 1 or not (alone and self._keeper.at_rest()):
                    raise self._memory_short() from error
            # Outside the handler, which holds what the failed attempt has allocated.
            self._halve_micro_batch()

    def _halve_micro_batch(self) -> None:
        """Gives the parts back as they were before the first step."""
        size, machinery = self._resources.micro_batch, self._machinery
        need = describe_need(self._options, micro_batch=size, free=self._free, processes=1)
        log.warning(
            "out of memory in the first step: %s; going on with %d, which changes no result",
            need, size // 2,
        )  # fmt: skip
        machinery.optimizer.zero_grad(set_to_none=True)
        evaluations, before = self._history.state_dict(), self._keeper.before
        restore_before_update(machinery, before)
        self._resources = replace(self._resources, micro_batch=size // 2)
        fewer = machinery.micro_batch_tokens // size * (size // 2)
        self._assemble(replace(machinery, micro_batch_tokens=fewer), self._sets)
        self._history.load_state_dict(evaluations)

    def _memory_short(self) -> MemoryShortError:
        return memory_short(
            self._options, micro_batch=self._resources.micro_batch,
            free=self._free, processes=self._processes.size,
        )  # fmt: skip

    def cleanup(self) -> None:
        """Closes the progress bar and the metric loggers, and lets others into the folder."""
        try:
            self._closing.close()
        finally:
            self._output.release()

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Saves the last whole step when a step is broken off and the policy is intact."""
        try:
            yield
        except BrokenOffError:
            self._keeper.save_last_whole_step()
        except PolicyIntactError:
            self._save_after_error()
            raise
        except (NumericalError, StorageError, MemoryShortError):
            raise  # the policy may be bad, or there is no room for it
        except Exception as error:
            self._save_after_error()
            if is_out_of_memory(error):
                raise self._memory_short() from error
            error.add_note(self._blame(error))
            raise

    def _save_after_error(self) -> None:
        try:
            if self._keeper.save_last_whole_step():
                log.warning("the policy is intact; %s", self._newest())
        except StorageError as error:  # the first error is what ended the run
            log.error("%s", error)

    def _blame(self, error: Exception) -> str:
        parts, built = self._options.parts(), named_parts(self._machinery)
        paired = {key: (parts[key], built[key]) for key in parts.keys() & built.keys()}
        paired |= named_evaluators(self._options.evaluation, self._sets)
        return blame(error, paired, self._registry, f"after {self._keeper.done} steps")

    def _newest(self) -> str:
        saved = self._checkpoints.saved()
        return f"checkpoint: {saved[-1]}" if saved else "there is no checkpoint yet"
