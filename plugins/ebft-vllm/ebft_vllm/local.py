"""vLLM's `LLM` as this plug-in uses it: token ids in and out, weights from memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from ebft_vllm.messages import Job, Sample, Samples, Start

ENVIRONMENT = {
    # The engine runs in the process that starts it; this plug-in chooses which process that is.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # By default vLLM pins every thread of the process to fixed cores, also the trainer's.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


class LocalEngine:
    """An engine in this process. Its calls block, and raise what vLLM raises."""

    def __init__(self, start: Start) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from vllm import LLM  # takes seconds to import
        from vllm.platforms import current_platform

        options = start.options
        if current_platform.is_cpu():
            # After a chunk of a context, vLLM rewinds the request's generator, which CPU generators
            # do not support: "CPU Generator does not use offset".
            options = {"enable_chunked_prefill": False, **options}
        self._llm = LLM(
            model=start.folder,
            dtype=start.dtype,
            # Weights are random until the first sync; none are read from disk.
            load_format="dummy",
            skip_tokenizer_init=True,
            max_model_len=start.max_length,
            kv_cache_memory_bytes=start.kv_cache_bytes,
            block_size=start.block_size,
            enable_prefix_caching=True,
            # Log-probs of the distribution that is sampled from, with temperature applied.
            logprobs_mode="processed_logprobs",
            generation_config="vllm",
            worker_extension_cls="ebft_vllm.worker.LoadsFromMemory",
            disable_log_stats=True,
            seed=0,
            **options,
        )

        self._adapter: Any = None

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Loads weights from this process's memory."""
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self._adapter = None
        self._forget()

    def load_mapped(self, path: str, layout: list[dict[str, Any]]) -> None:
        """Loads weights from shared memory that the engine's workers open by path."""
        self._llm.collective_rpc("load_from_memory", args=(path, layout))
        self._adapter = None
        self._forget()

    def load_adapter(self, folder: Path) -> None:
        """Loads an adapter from a folder, which may be deleted then. It is used until `load`."""
        from vllm.lora.request import LoRARequest

        # By this request it is loaded again; requests that sample with it must not ask for that.
        named = {"lora_name": "policy", "lora_int_id": 1, "lora_path": str(folder)}
        if not self._llm.llm_engine.add_lora(LoRARequest(**named, load_inplace=True)):
            raise RuntimeError("vLLM did not load the adapter")
        self._adapter = LoRARequest(**named)
        self._forget()

    def sample(self, job: Job) -> Samples:
        """Returns n samples for each request of the job."""
        return self.sample_all([job])[0]

    def sample_all(self, jobs: Sequence[Job]) -> list[Samples]:
        """Returns the samples of each job; all are computed in the same batches."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                n=job.n,
                seed=request.seed,
                temperature=job.temperature,
                max_tokens=job.length,
                logprobs=0,  # only that of the sampled token
                detokenize=False,
                ignore_eos=True,
                stop_token_ids=None if job.stop is None else [job.stop],
            )
            for job in jobs
            for request in job.requests
        ]
        outputs = self._llm.generate(
            [{"prompt_token_ids": request.tokens} for job in jobs for request in job.requests],
            parameters,
            use_tqdm=False,
            lora_request=self._adapter,
        )
        each = iter([_sample(one) for one in output.outputs] for output in outputs)
        return [list(islice(each, len(job.requests))) for job in jobs]

    def _forget(self) -> None:
        # The prefix cache has keys and values of the old weights.
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM refused to reset its prefix cache")


def _sample(output: Any) -> Sample:
    tokens = list(output.token_ids)
    log_probs = [here[token].logprob for here, token in zip(output.logprobs, tokens, strict=True)]
    return Sample(tokens, log_probs)
