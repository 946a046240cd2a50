"""`ebft-vllm serve` with an engine that transformers computes, for tests without vLLM.

Its samples and log-probs are exact, and those of a request do not depend on others.
"""

import copy
import sys

import torch
from ebft_vllm import available, command, local
from ebft_vllm.messages import Sample
from ebft_vllm.shared import open_weights
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM


class StandIn:
    def __init__(self, start):
        if "no_such_option" in start.options:
            raise TypeError("no_such_option")
        self.base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(start.folder))
        self.model = self.base

    def load_mapped(self, path, layout):
        with open_weights(path, layout) as weights:
            self.base.load_state_dict(weights)
        self.model = self.base

    def load_adapter(self, folder):
        self.model = PeftModel.from_pretrained(copy.deepcopy(self.base), folder).eval()

    @torch.no_grad()
    def sample_all(self, jobs):
        return [[self._sample(request, job) for request in job.requests] for job in jobs]

    def _sample(self, request, job):
        return [self._one(request.tokens, request.seed + j, job) for j in range(job.n)]

    def _one(self, tokens, seed, job):
        generator = torch.Generator().manual_seed(seed % 2**63)
        sample = Sample([], [])
        while len(sample.tokens) < job.length:
            logits = self.model(torch.tensor([tokens + sample.tokens])).logits[0, -1]
            log_probs = (logits / job.temperature).log_softmax(-1)
            token = int(log_probs.exp().multinomial(1, generator=generator))
            sample.tokens.append(token)
            sample.log_probs.append(float(log_probs[token]))
            if token == job.stop:
                break
        return sample


if __name__ == "__main__":
    torch.set_num_threads(1)
    local.LocalEngine = StandIn
    available.require_vllm = lambda: None
    sys.exit(command.main())
