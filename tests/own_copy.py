"""A plug-in with a sampler that has a copy of the weights, as an engine in another process has."""

import threading
from dataclasses import replace

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

import ebft
from ebft.distributed.processes import ONE_PROCESS
from ebft.models.attention import TREE
from ebft.samplers.hf_tree import HfTree


class OwnCopy(ebft.SamplerPart):
    """Samples like hf_tree, from weights that only `sync` changes. `fails_at` is a step."""

    fails_at: int = -1

    def has_own_weights(self, processes):
        return True

    def build(self, resources):
        return OwnCopySampler(self, resources)


class OwnCopySampler:
    def __init__(self, options, resources):
        config = resources.policy.config
        self.n, self.options = options.n, options
        self.copy = AutoModelForCausalLM.from_config(config, attn_implementation=TREE).eval()
        alone = replace(resources, policy=self.copy, processes=ONE_PROCESS)
        self.inner = HfTree(n=options.n).build(alone)
        self.busy = threading.Lock()
        self.sync(resources.policy, step=-1)

    def __call__(self, contexts, *, step):
        with self.alone():
            if step == self.options.fails_at:
                raise ebft.EngineError(f"the engine died in step {step}")
            return self.inner(contexts, step=step)

    def sync(self, policy, *, step):
        with self.alone(), torch.no_grad():
            self.copy.load_state_dict({k: whole(w) for k, w in policy.state_dict().items()})
        return {"sync_step": step}

    def alone(self):
        """An engine answers one request at a time."""
        assert not self.busy.locked(), "it is still answering"
        return self.busy


def whole(weight):
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


@ebft.hookimpl
def register_samplers():
    return {"own_copy": OwnCopy}
