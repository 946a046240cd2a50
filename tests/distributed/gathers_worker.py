"""Counts the collectives of weights in each phase of a step, in each torchrun process."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from ebft.config.load import load_recipe
from ebft.runs.finetune import FineTuning
from ebft.training.loop import accumulate_gradients, sample_and_score

OPERATORS = "c10d::_allgather_base_", "c10d::_reduce_scatter_base_"


def count(file, *overrides):
    """Prints the micro-batches, and for each phase the all-gathers and reduce-scatters."""
    recipe = load_recipe(Path(file), overrides)
    with FineTuning(recipe.options, recipe.registry, source=recipe.source) as run:
        loop, found = run.prepared.loop, {}

        @contextmanager
        def counted(phase):
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                yield
            names = [event.name for event in profiled.events()]
            found[phase] = tuple(names.count(operator) for operator in OPERATORS)

        def during(phase, part):
            def call(*arguments, **options):
                with counted(phase):
                    return part(*arguments, **options)

            return call

        contexts, parts = loop.contexts(0), loop.rollout_parts
        rollouts = during("sampling", parts.sampler)(contexts, step=0)

        def sampled(contexts, *, step):
            return rollouts

        sampled.n = parts.sampler.n
        features = during("features", parts.feature_map)
        parts = replace(parts, sampler=sampled, feature_map=features)
        scored = sample_and_score(parts, contexts, loop.processes, step=0)
        with counted("training"):
            accumulate_gradients(
                loop.policy, contexts, scored, loop.objective,
                precision=loop.precision, gradient_checkpointing=loop.gradient_checkpointing,
                step=0, processes=loop.processes,
            )  # fmt: skip
        if loop.processes.is_main:
            print(len(contexts.micro_batches), *sum(found.values(), ()))
    loop.processes.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    count(*sys.argv[1:])
