"""The tree's attention and FlexAttention against the dense mask, and sampling against training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config

from ebft.models.attention import DENSE, FLEX, TREE
from ebft.models.lora import add_adapter
from ebft.models.options import LoraOptions
from ebft.models.probe import probe_tree
from ebft.models.quantize import quantize_to
from ebft.models.tree_log_probs import tree_log_probs
from ebft.parts.packages import missing
from ebft.plans.strided import Strided
from ebft.rollout.records import Rollouts
from ebft.samplers.hf_tree import HfTree
from ebft.testing import tiny_documents, tiny_resources
from tests.gpu.report import Place, Report

CONFIG = Qwen2Config(
    vocab_size=24, hidden_size=256, intermediate_size=256, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1, pad_token_id=0,
    bos_token_id=1, eos_token_id=1,
)  # fmt: skip
PLAN = Strided(start=3, stride=4, rollout_length=5)
LENGTHS, SHORT = (300, 170, 40), (50, 34, 20)
OURS = {"tree": TREE, "flex": FLEX}
EXACT = 2e-3
"""The largest relative distance of gradients in float32: rounding makes about 1e-5."""


class Computed(NamedTuple):
    """Log-probs of rollouts [P, n, G], and the gradients of the weights; none without backward."""

    log_probs: Tensor
    gradients: list[Tensor]


def policy(attention: str, device: str, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG, attn_implementation=attention)
    return model.to(device, dtype).eval()


def sampled(model, lengths=LENGTHS) -> Rollouts:
    contexts = PLAN(tiny_documents(lengths, vocabulary=CONFIG.vocab_size)).to(model.device)
    return HfTree(n=3).build(tiny_resources(model))(contexts, step=0)


def computed(model, rollouts: Rollouts, *, backward: bool = True) -> Computed:
    """A loss of all log-probs, and its gradient in the trained weights."""
    with torch.set_grad_enabled(backward):
        out = tree_log_probs(model, rollouts)
    if not backward:
        return Computed(out.rollouts, [])
    weights = torch.linspace(-1, 1, out.rollouts.numel(), device=model.device)
    loss = (out.rollouts.flatten() * weights).sum() + out.documents.sum()
    trained = [p for p in model.parameters() if p.requires_grad]
    return Computed(out.rollouts.detach(), list(torch.autograd.grad(loss, trained)))


def distance(ours: Computed, theirs: Computed) -> float:
    """The largest ‖a − b‖ / ‖b‖ of log-probs and gradients."""
    pairs = zip([ours[0], *ours[1]], [theirs[0], *theirs[1]], strict=True)
    return max(float((a - b).norm() / b.norm().clamp(min=1e-3)) for a, b in pairs)


def rounding(attention: str, rollouts: Rollouts, device: str) -> float:
    """The error of bfloat16 log-probs, over that with the dense mask."""
    exact, ours, dense = (
        computed(policy(which, device, dtype), rollouts, backward=False).log_probs.float()
        for which, dtype in (
            (DENSE, torch.float32),
            (attention, torch.bfloat16),
            (DENSE, torch.bfloat16),
        )
    )
    return float((ours - exact).norm() / (dense - exact).norm())


def sampling_gap(model, rollouts: Rollouts) -> float:
    """The largest difference in nats between log-probs when sampled and when trained on."""
    trained = computed(model, rollouts, backward=False).log_probs
    return float((trained - rollouts.log_probs).abs().max())


def equality(report: Report, place: Place) -> None:
    """Part `equality`."""
    lengths, device = place.sized(LENGTHS, SHORT), place.device
    rollouts = sampled(policy(DENSE, device), lengths)
    for name, attention in OURS.items():
        backward = not (name == "flex" and device == "cpu")  # it has none there
        both = (
            computed(policy(which, device), rollouts, backward=backward)
            for which in (attention, DENSE)
        )
        report.check(f"{name}: from dense, float32", distance(*both), at_most=EXACT)
        report.check(f"{name}: rounding in bfloat16", rounding(attention, rollouts, device),
                     at_most=2, unit="× dense")  # fmt: skip
        for dtype, most in ((torch.float32, 1e-3), (torch.bfloat16, 0.5)):
            model = policy(attention, device, dtype)
            gap = sampling_gap(model, sampled(model, lengths))
            label = f"{name}: sampled and trained, {str(dtype).removeprefix('torch.')}"
            report.check(label, gap, at_most=most, unit="nats")
        documents = tiny_documents(lengths[:1], vocabulary=CONFIG.vocab_size)
        gap = probe_tree(policy(attention, device), documents, PLAN)
        report.check(f"{name}: from single texts", gap, at_most=1e-3, unit="nats")


def adapters(report: Report, place: Place) -> None:
    """Part `lora`: gradients of an adapter, and a base in 4 bits as on the CPU."""
    lengths, device = place.sized(LENGTHS, SHORT), place.device
    rollouts = sampled(policy(DENSE, device), lengths)
    both = (computed(adapted(policy(which, device)), rollouts) for which in (OURS["tree"], DENSE))
    report.check("adapter: from dense, float32", distance(*both), at_most=EXACT)
    if (why := missing("torchao")) is not None:
        report.figure("4 bits", why)
        return
    here, on_cpu = (
        computed(adapted(in_four_bits(policy(TREE, "cpu"), where)), rollouts.to(where))
        for where in (place.on, torch.device("cpu"))
    )
    here = Computed(here.log_probs.cpu(), [g.cpu() for g in here.gradients])
    report.check("4 bits: from the CPU", distance(here, on_cpu), at_most=EXACT)


def adapted(model):
    """The model with an adapter that changes something."""
    add_adapter(model, LoraOptions(rank=4), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return model


def in_four_bits(model, device: torch.device):
    quantize_to(model, device)
    return model
