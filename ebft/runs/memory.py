"""Running out of memory: how it shows, what fits, what to say about it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ebft.errors import MemoryShortError, UserError
from ebft.processes import Launch
from ebft.runs.estimate import estimate_memory

if TYPE_CHECKING:
    from ebft.runs.finetune_options import FineTuneOptions

GIB = 2**30
SHARE = 0.8
"""How much of the free memory to use: estimates are within 15 %, and others may need some."""

log = logging.getLogger("ebft")


def choose_micro_batch(
    options: FineTuneOptions, free: int, *, processes: int = 1, before: int | None = None
) -> int:
    """`training.micro_batch`; for auto, as many of the longest documents as `free` bytes hold.

    `free` is what each of the processes has before the models are loaded, and `before` what a run
    that is resumed had: if that fits too, it is taken, for the same results to the last bit. Raises
    `UserError` if what a document needs cannot be estimated.
    """
    chosen, most = options.training.micro_batch, options.training.documents_per_step // processes
    if chosen != "auto":
        return chosen
    try:
        needed = [
            estimate_memory(options, count, processes=processes).total
            for count in range(1, most + 1)
        ]
    except ValueError as error:
        raise UserError(f"training.micro_batch = auto: {error}; give a number") from error
    fitting = sum(size <= SHARE * free for size in needed)
    size = max(1, fitting)
    if before is not None and 1 <= before <= size:
        log.info("training.micro_batch = auto: %d, as before the run was stopped", before)
        return before
    log.log(
        logging.INFO if fitting else logging.WARNING,
        "training.micro_batch = auto: %d, estimated to need %.1f GiB of the %.1f GiB that are free",
        size, needed[size - 1] / GIB, free / GIB,
    )  # fmt: skip
    return size


def describe_need(options: FineTuneOptions, *, micro_batch: int, free: int, processes: int) -> str:
    """`about 5.7 GiB are needed …, and 3.1 GiB were free`."""
    need = _need(options, micro_batch=micro_batch, processes=processes)
    return f"{need}, and {free / GIB:.1f} GiB were free when the run began"


def describe_least_need(options: FineTuneOptions) -> str:
    """What the smallest micro-batch needs, and what to lower where not even the models fit."""
    need = _need(options, micro_batch=1, processes=Launch.of_environment().size)
    adapter = "" if options.model.lora is not None else "model.lora={rank: 16}, or "
    return f"{need}; set {adapter}a smaller documents.length or another model.path"


def _need(options: FineTuneOptions, *, micro_batch: int, processes: int) -> str:
    try:
        estimate = estimate_memory(options, micro_batch, processes=processes).total
        need = f"about {estimate / GIB:.1f} GiB are needed"
    # A model or a plan that cannot be foreseen, whatever it raises: no run ends for this line.
    except Exception as error:
        need = f"what is needed is not known: {error}"
    return f"{need} with training.micro_batch = {micro_batch}"


def memory_short(
    options: FineTuneOptions, *, micro_batch: int, free: int, processes: int
) -> MemoryShortError:
    """The error that ends a run, with the numbers and what to lower."""
    advice = [f"training.micro_batch={max(1, micro_batch // 2)}"] if micro_batch > 1 else []
    if not options.training.gradient_checkpointing:
        advice.append("training.gradient_checkpointing=true")
    if options.training.measure_gradients_every is not None:
        advice.append("training.measure_gradients_every=null")
    advice.append("a smaller documents.length, sampler.n or plan.rollout_length")
    need = describe_need(options, micro_batch=micro_batch, free=free, processes=processes)
    return MemoryShortError(f"out of memory: {need}; set {', or '.join(advice)}")
