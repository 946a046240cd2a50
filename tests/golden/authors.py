"""The authors' numbers, and their layout in ours."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config

from ebft.models import attention
from ebft.parts.part import Resources
from ebft.plans.strided import Strided
from ebft.rollout.records import Document, Rollouts

DATA = Path(__file__).parent / "data"


def tensors(name: str) -> dict[str, Tensor]:
    return load_file(DATA / f"{name}.safetensors")


def cases(name: str) -> list[dict]:
    return json.loads((DATA / f"{name}.json").read_text())


def tiny_model(name: str):
    """`tiny_policy` or `tiny_feature`."""
    config = json.loads((DATA / "tiny_config.json").read_text())
    unused = {"model_type", "transformers_version", "_name_or_path"}
    config = Qwen2Config(**{k: v for k, v in config.items() if k not in unused})
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.TREE)
    model.load_state_dict(tensors(name), strict=False)
    model.tie_weights()
    return model.eval()


def resources(policy, features) -> Resources:
    return Resources(
        policy=policy,
        tokenizer=None,
        load_base=lambda: features,
        device=torch.device("cpu"),
        precision=torch.float32,
        seed=0,
    )


def rollouts_of(prompts: Tensor, generated: Tensor, plan: Strided, n: int, temperature: float):
    """Their rows (prompt b, sample j) with step-major tokens as our contexts and rollouts."""
    contexts = plan([Document(f"prompt {b}", prompt) for b, prompt in enumerate(prompts)])
    tokens = by_rollout(generated, len(prompts), n, plan.rollout_length)
    everything = torch.ones(tokens.shape, dtype=torch.bool)
    return Rollouts(contexts, tokens, torch.zeros(tokens.shape), everything, temperature)


def by_rollout(rows: Tensor, prompts: int, n: int, G: int) -> Tensor:
    """`[prompts·n, …, G·K]` step-major at the end → `[P, n, G]` with P = prompts·K."""
    K = rows.shape[-1] // G if rows.shape[-1] % G == 0 else 0
    assert K, rows.shape
    return rows.view(prompts, n, G, K).permute(0, 3, 1, 2).reshape(prompts * K, n, G)


def by_row(values: Tensor, prompts: int) -> Tensor:
    """Our `[P, n]` → their `[prompts·n, K]`."""
    P, n = values.shape
    return values.view(prompts, P // prompts, n).transpose(1, 2).reshape(prompts * n, -1)


def by_context(values: Tensor, n: int) -> Tensor:
    """Their `[…, groups·n, K]` → `[contexts, n]`."""
    *lead, rows, K = values.shape
    return values.view(*lead, rows // n, n, K).transpose(-1, -2).reshape(-1, n)
