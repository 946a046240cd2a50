"""Inversion of the cumulative distribution, against the plain definition of it."""

import pytest
import torch

from ebft.samplers.draw import BLOCK, draw


def plain(logits, uniform, temperature):
    p = (logits.double() / temperature).softmax(-1)
    tokens = torch.searchsorted(p.cumsum(-1), uniform, right=True).clamp(max=logits.shape[1] - 1)
    return tokens, p.log().gather(1, tokens)


@pytest.mark.parametrize("V", [1, 5, BLOCK, BLOCK + 1, 1000])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_it_is_the_plain_inversion(V, temperature):
    rng = torch.Generator().manual_seed(V)
    logits = torch.randn(50, V, generator=rng, dtype=torch.float64)
    uniform = torch.rand(50, 7, generator=rng, dtype=torch.float64)
    tokens, log_probs = draw(logits, uniform, temperature)
    expected, expected_log_probs = plain(logits, uniform, temperature)
    assert torch.equal(tokens, expected)
    torch.testing.assert_close(log_probs, expected_log_probs)


def test_the_ends_of_the_unit_interval_are_tokens_that_can_be_drawn():
    logits = torch.full((1, 3 * BLOCK), float("-inf"))
    logits[0, [2, BLOCK + 1, 2 * BLOCK - 5]] = 0.0
    tokens, log_probs = draw(logits, torch.tensor([[0.0, 1 - 2**-53, 0.4]]).double(), 1.0)
    assert tokens.tolist() == [[2, 2 * BLOCK - 5, BLOCK + 1]]
    torch.testing.assert_close(log_probs, torch.full((1, 3), 1 / 3).log())


def test_frequencies_are_the_probabilities():
    from scipy import stats

    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(1, 200_000, generator=torch.Generator().manual_seed(1))
    tokens, _ = draw(logits, uniform.double(), 0.8)
    counts = torch.bincount(tokens[0], minlength=300).double()
    expected = (logits[0].double() / 0.8).softmax(-1) * 200_000
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_float32_over_a_large_vocabulary_draws_its_rare_tokens():
    """The last token of 200,000 has probability 5e-6, which a float32 sum would lose."""
    logits = torch.zeros(1, 200_000)
    tokens, _ = draw(logits, torch.tensor([[1 - 1e-6, 0.5]]).double(), 1.0)
    assert tokens.tolist() == [[199_999, 100_000]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_the_log_prob_of_its_row(bad):
    logits = torch.zeros(2, 300)
    logits[1, 200] = bad
    _, log_probs = draw(logits, torch.tensor([[0.1, 0.9]] * 2).double(), 1.0)
    assert log_probs.isfinite().all(1).tolist() == [True, False]
    assert not log_probs[1].isfinite().any()
