"""Runs a recipe's steps and writes down what they did; by itself, or in each torchrun process."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from ebft.config.load import load_recipe
from ebft.models.shard import whole_weights
from ebft.runs.finetune import FineTuning
from ebft.training.loop import train


def record(folder, file, *overrides):
    """Writes `rank-N.json`, what process N did, and `weights.safetensors` after the last step."""
    recipe = load_recipe(Path(file), overrides)
    with FineTuning(recipe.options, recipe.registry, source=recipe.source) as run:
        loop = run.prepared.loop
        steps = [written(step) for step in train(loop, range(recipe.options.training.steps))]
        policy, processes = loop.policy, loop.processes
        weights = whole_weights(policy) if processes.size > 1 else dict(policy.named_parameters())
        Path(folder, f"rank-{processes.rank}.json").write_text(json.dumps(steps))
        if processes.is_main:
            values = {name: value.detach().contiguous() for name, value in weights.items()}
            save_file(values, Path(folder, "weights"))
    processes.close()


def written(step):
    contexts, scored, policy_gradient = step.contexts, step.scored, step.losses.policy_gradient
    done = {
        "documents": [document.name for document in contexts.documents],
        "cross_entropy": step.losses.cross_entropy,
        "grad_norm": step.grad_norm,
    }
    if scored is None:
        return done
    names = [contexts.documents[row].name for row in contexts.row]
    places = [f"{name} {anchor}" for name, anchor in zip(names, contexts.anchor, strict=True)]
    return done | {
        "tokens": dict(zip(places, scored.rollouts.tokens.tolist(), strict=True)),
        "advantages": dict(zip(places, scored.advantages.tolist(), strict=True)),
        "policy_gradient": policy_gradient.loss,
        "importance": policy_gradient.ratios and list(policy_gradient.ratios),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    record(*sys.argv[1:])
