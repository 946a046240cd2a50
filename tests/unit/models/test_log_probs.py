"""The chunked log-probs against torch's own cross-entropy, values and gradients."""

import pytest
import torch
from torch import nn
from transformers import PretrainedConfig

from ebft.models import log_probs
from ebft.models.decoder import decoder
from ebft.models.log_probs import token_log_probs
from tests.models.sweep import build


class Model(nn.Module):
    """A head and a config: as much of a model as the function looks at."""

    def __init__(self, head, cap=None, scale=None):
        super().__init__()
        self.embedding, self.head = nn.Embedding(1, 1), head
        said = {"final_logit_softcapping": cap, "logit_scale": scale}
        self.config = PretrainedConfig(**{k: v for k, v in said.items() if v is not None})

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.head


def plain(model, hidden, targets, temperature, cap, scale=1.0):
    z = model.head(hidden) * scale
    if cap is not None:
        z = cap * torch.tanh(z / cap)
    return -nn.functional.cross_entropy(z / temperature, targets, reduction="none")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("cap", "scale"), [(None, None), (3.0, None), (None, 0.25)])
@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("rows", [1, log_probs.ROWS, 2 * log_probs.ROWS + 7])
def test_equals_cross_entropy(bias, cap, scale, temperature, rows):
    torch.manual_seed(0)
    model = Model(nn.Linear(6, 11, bias=bias).double(), cap, scale)
    hidden = torch.randn(rows, 6, dtype=torch.float64, requires_grad=True) * 3
    hidden.retain_grad()
    targets = torch.randint(11, (rows,))
    weights = torch.randn(rows, dtype=torch.float64)
    inputs = [hidden, *model.head.parameters()]

    ours = token_log_probs(model, hidden, targets, temperature)
    expected = plain(model, hidden, targets, temperature, cap, scale or 1.0)
    torch.testing.assert_close(ours, expected, atol=1e-11, rtol=0)
    for a, b in zip(
        torch.autograd.grad((weights * ours).sum(), inputs),
        torch.autograd.grad((weights * expected).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("cap", [None, 3.0])
def test_kept_logits_give_the_same_bit_for_bit(cap, monkeypatch):
    """And backward makes no product with the head to get them; a second one does."""
    torch.manual_seed(0)
    model, products, make = Model(nn.Linear(6, 11), cap), [], log_probs._logits
    monkeypatch.setattr(log_probs, "ROWS", 4)
    monkeypatch.setattr(log_probs, "_logits", lambda *a: products.append(1) or make(*a))
    targets, weights = torch.randint(11, (9,)), torch.randn(9)
    hidden = torch.randn(9, 6, requires_grad=True)

    def results(**how):
        products.clear()
        out = token_log_probs(model, hidden, targets, 0.7, **how)
        inputs = [hidden, *model.head.parameters()]
        again = [torch.autograd.grad((weights * out).sum(), inputs, retain_graph=True)]
        counts = [len(products)]
        again.append(torch.autograd.grad((weights * out).sum(), inputs))
        return [out, *again[0], *again[1]], [*counts, len(products)]

    ours, counts = results(keep_logits=True)
    expected, others = results()
    assert counts == ([3, 6] if cap is None else others)
    assert others == [6, 9]
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


def test_autocast_keeps_float32_results_and_gradients():
    torch.manual_seed(0)
    model = Model(nn.Linear(16, 50, bias=False))
    hidden = torch.randn(9, 16, requires_grad=True)
    targets = torch.randint(50, (9,))
    with torch.autocast("cpu", torch.bfloat16):
        ours = token_log_probs(model, hidden, targets)
    assert ours.dtype == torch.float32
    grad = torch.autograd.grad(ours.sum(), [hidden, model.head.weight])
    exact = torch.autograd.grad(
        plain(model, hidden, targets, 1.0, None).sum(), [hidden, model.head.weight]
    )
    for a, b in zip(grad, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_of_many_parts_add_up_in_float32(bias, monkeypatch):
    monkeypatch.setattr(log_probs, "ROWS", 1)
    torch.manual_seed(0)
    model = Model(nn.Linear(16, 50, bias=bias))
    hidden = torch.rand(1000, 16).bfloat16().float()  # the same in bfloat16: what differs are sums
    model.head.weight.data = model.head.weight.bfloat16().float()
    targets = torch.zeros(1000).long()
    with torch.autocast("cpu", torch.bfloat16):
        ours = token_log_probs(model, hidden, targets)
    exact = plain(model, hidden, targets, 1.0, None)
    inputs = list(model.head.parameters())
    for a, b in zip(
        torch.autograd.grad(ours.sum(), inputs),
        torch.autograd.grad(exact.sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=0, rtol=0.01)


def test_a_head_that_is_not_linear_is_refused():
    with pytest.raises(ValueError, match="no linear LM head"):
        token_log_probs(Model(nn.Identity()), torch.zeros(1, 2), torch.zeros(1).long())


@pytest.mark.parametrize("name", ["llama", "bert", "electra", "modernbert-decoder"])
def test_logits_are_the_model_s_own(name):
    """Between decoder and head there are layers: in one module with the head, or beside it."""
    model = build(name, None, torch.float32)
    tokens = torch.tensor([[5, 3, 9, 4]])
    with torch.no_grad():
        hidden = decoder(model)(input_ids=tokens).last_hidden_state[0]
        found, expected = log_probs.logits(model, hidden), model(input_ids=tokens).logits[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
