"""The gradients of single documents where weights are sharded over processes.

A process has the whole gradient of a weight only until FSDP reduces it. So the squared norm of each
document's gradient is taken there, weight by weight, and the reduced gradients are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ebft.models.layers import eager, recompute_layers

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from ebft.distributed.processes import Processes
    from ebft.rollout.records import Contexts


def sum_sharded(
    policy: PreTrainedModel,
    contexts: Contexts,
    loss: Callable[[Contexts, slice], Tensor],
    gradient_checkpointing: bool,
    processes: Processes,
) -> tuple[list[float], float]:
    """Returns |g|² of each document's gradient, and |Σ g|² of their sum, over all processes.

    `loss` is that of one of this process's `contexts`, and its place. Every process must call this
    with as many documents. The policy's `.grad` is not changed.
    """
    from ebft.models.shard import unsharded_parameters

    trained = [p for p in policy.parameters() if p.requires_grad]
    squared = _Squared()
    with ExitStack() as stack:
        stack.enter_context(_without_gradients(trained))
        # Compiled layers would compile again for documents of other lengths.
        stack.enter_context(eager(policy))
        stack.enter_context(recompute_layers(policy, enabled=gradient_checkpointing))
        for parameter in unsharded_parameters(policy):
            hook = parameter.register_post_accumulate_grad_hook(squared.add)  # type: ignore[no-untyped-call]
            stack.callback(hook.remove)
        for place, one in contexts.one_by_one().split():
            squared.begin()
            loss(one, place).backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    of_documents = processes.gather(torch.tensor(squared.sums(), dtype=torch.float64))
    return cast(list[float], of_documents.tolist()), float(norm) ** 2


class _Squared:
    """The squared norms of documents' gradients. The host waits for the device once."""

    def __init__(self) -> None:
        self._of_documents: list[list[Tensor]] = []

    def begin(self) -> None:
        """The gradients that follow are the next document's."""
        self._of_documents.append([])

    def add(self, parameter: Tensor) -> None:
        """Adds a weight's gradient, as a hook that runs when all of it is in `.grad`."""
        assert parameter.grad is not None
        self._of_documents[-1].append(parameter.grad.float().square().sum())

    def sums(self) -> list[float]:
        each = torch.stack([torch.stack(squared) for squared in self._of_documents])
        sums: list[float] = each.double().sum(1).tolist()
        return sums


@contextmanager
def _without_gradients(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Context manager in which the parameters have no gradients; afterwards they have theirs."""
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, grad in zip(parameters, before, strict=True):
            parameter.grad = grad
