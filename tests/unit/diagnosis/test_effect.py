from functools import partial

import pytest
import torch

from ebft.diagnosis.effect import progress_per_step

SGD = partial(torch.optim.SGD, lr=0.1)
ADAM = partial(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
SIZES = {"signal": 1e-4, "noise": 9e-4, "weights": 10**8}


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-2])
def test_sgd_gains_lr_times_the_signal_whatever_the_noise(noise):
    """Noise of at most 0.1, so that nothing is clipped at 1."""
    found = progress_per_step(SGD, signal=1e-4, noise=noise, weights=10**6, clip=1.0)
    assert found == pytest.approx(0.1 * 1e-4, rel=1e-3)


def test_clipping_scales_it():
    """The gradient's norm is 2."""
    found = progress_per_step(SGD, signal=1.0, noise=3.0, weights=10**6, clip=0.5)
    assert found == pytest.approx(0.1 * 1.0 / 4, rel=1e-3)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3])
def test_adam_gains_in_proportion_to_the_angle(noise):
    """lr √W |G|²/√(|G|² + noise): each weight moves by lr in the direction of its gradient."""
    S, W = 1e-4, 10**8
    found = progress_per_step(ADAM, signal=S, noise=noise, weights=W, clip=1.0)
    assert found == pytest.approx(1e-3 * W**0.5 * S / (S + noise) ** 0.5, rel=0.05)


@pytest.mark.parametrize("optimizer", [SGD, ADAM])
def test_the_learning_rate_decides(optimizer):
    single = progress_per_step(optimizer, **SIZES, clip=1.0)
    double = progress_per_step(
        partial(optimizer, lr=2 * optimizer.keywords["lr"]), **SIZES, clip=1.0
    )
    assert double == pytest.approx(2 * single, rel=1e-3)


def test_it_is_the_same_each_time_and_hardly_depends_on_the_seed():
    first, again, other = (
        progress_per_step(ADAM, **SIZES, clip=1.0, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert other == pytest.approx(first, rel=0.02)


def test_of_no_signal_there_is_no_progress():
    assert progress_per_step(ADAM, signal=0.0, noise=1e-3, weights=10**6, clip=1.0) == 0
    assert progress_per_step(SGD, signal=0.0, noise=0.0, weights=10**6, clip=1.0) == 0
