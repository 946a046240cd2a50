"""The options of sampler `vllm`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from ebft.parts.kinds import SamplerPart
from ebft.parts.part import Claim
from ebft_vllm.channel import Address

OURS = frozenset(
    {
        "model", "dtype", "load_format", "skip_tokenizer_init", "max_model_len", "logprobs_mode",
        "generation_config", "enable_prefix_caching", "kv_cache_memory_bytes", "block_size",
        "seed", "worker_extension_cls", "disable_log_stats",
    }
)  # fmt: skip
"""Arguments of `vllm.LLM` that the sampler sets itself, so `engine_options` must not."""


class VllmOptions(SamplerPart):
    """The options of sampler `vllm`."""

    same_results = (
        "engine", "sync", "address", "token_file", "devices", "kv_cache_gib", "block_size",
        "probe_contexts", "probe_tolerance", "start_timeout", "timeout",
    )  # fmt: skip
    temperature: float = Field(
        1.0, gt=0, description="divides the logits, when sampling and when training on them"
    )
    engine: Literal["own_process", "in_process", "server"] = Field(
        "own_process",
        description="own_process: a child process, which can die without the trainer; "
        "in_process: a thread of the trainer, which needs no shared copy of the weights; "
        "server: `ebft-vllm serve`, also on another machine, which all processes of a run share",
    )
    address: str | None = Field(
        None, description="host:port of the server; the host must be known to all processes"
    )
    token_file: Path | None = Field(
        None,
        description="the file with the server's token (--token-file); null: it asks for none",
    )
    devices: str | None = Field(
        None,
        description="CUDA_VISIBLE_DEVICES of an engine in its own process ('1', '2,3'); "
        "null: the trainer's",
    )
    sync: Literal["merged", "adapter"] = Field(
        "merged",
        description="of a policy with an adapter: merged: all weights in every step, with the "
        "adapter merged; adapter: the base model's weights once, then the adapter alone",
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        None, description="dtype of the engine's weights, a server's too; null: model.precision"
    )
    max_length: int | None = Field(
        None,
        ge=2,
        description="the most tokens of context and rollout; null: the model's limit, or the "
        "server's",
    )
    kv_cache_gib: float = Field(
        1.0, gt=0, description="memory for the engine's KV cache, in GiB; a server has its own"
    )
    block_size: int = Field(
        32,
        ge=1,
        description="tokens of a block of the KV cache; prefixes are shared in whole blocks; a "
        "server has its own",
    )
    probe_contexts: int = Field(4, ge=1, description="fixed contexts that a probe samples from")
    probe_tolerance: float | None = Field(
        None,
        gt=0,
        description="largest |log p(engine) − log p(trainer)| of a probe; "
        "null: 0.005 if both compute in float32, 0.5 otherwise",
    )
    start_timeout: float = Field(
        600.0,
        gt=0,
        description="seconds that the engine may take to start, or a server to be there",
    )
    timeout: float = Field(
        600.0,
        gt=0,
        description="seconds that one sync or one sampling may take; of a server, seconds without "
        "an answer",
    )
    engine_options: dict[str, Any] = Field(
        default_factory=dict, description="more arguments of vllm.LLM, as vLLM names them"
    )

    def claim(self) -> Claim:
        if self.dtype is not None:
            return Claim(False, f"the engine's weights are {self.dtype}, unlike the policy's")
        return Claim(True, "it samples from the policy's weights, up to the engine's rounding")

    @field_validator("engine_options")
    @classmethod
    def _not_ours(cls, options: dict[str, Any]) -> dict[str, Any]:
        if taken := OURS & set(options):
            raise ValueError(
                f"{', '.join(sorted(taken))}: set by the sampler itself; remove it, and use the "
                "sampler's own options instead"
            )
        return options

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str | None) -> str | None:
        if address is not None:
            Address.parse(address)
        return address

    @model_validator(mode="after")
    def _suits_the_engine(self) -> Self:
        if self.engine == "server":
            if self.address is None:
                raise ValueError("address: missing; give host:port of `ebft-vllm serve`")
            given = {"devices": self.devices, "engine_options": self.engine_options}
            if taken := [key for key, value in given.items() if value]:
                raise ValueError(
                    f"{', '.join(taken)}: of an engine that the run starts, and sampler.engine = "
                    "server; remove it, and set it where `ebft-vllm serve` is started"
                )
        elif self.address is not None or self.token_file is not None:
            key = "token_file" if self.address is None else "address"
            raise ValueError(f"{key}: of a server; set sampler.engine=server, or remove it")
        return self

    def missing(self) -> str | None:
        from ebft_vllm.available import missing_vllm

        return None if self.engine == "server" else missing_vllm()

    def has_own_weights(self, processes: int) -> bool:
        # Several processes tell each other of a failure whenever they have sampled.
        return self.engine != "in_process" and processes == 1

    def single_process(self) -> str | None:
        if self.engine == "server":
            return None
        return (
            "the engine loads a policy's whole weights, and each process has only a part of them; "
            "set sampler.engine=server, which all processes share"
        )
