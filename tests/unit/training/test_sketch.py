import pytest
import torch

from ebft.training.sketch import SIZE, Sketch
from tests.property.strategies import generator, normal

SHAPES = [(7, 5), (3,), (40,), (1,), (11, 9)]
TOTAL = sum(torch.Size(shape).numel() for shape in SHAPES)


def gradient(seed, scale=1.0):
    return [scale * normal(seed + i, *shape).float() for i, shape in enumerate(SHAPES)]


def flat(gradient):
    return torch.cat([g.flatten() for g in gradient]).double()


def test_of_few_weights_it_is_the_gradient_itself():
    x = gradient(0)
    sketch = Sketch(x, seed=3)
    assert sketch.size == TOTAL < SIZE
    assert torch.equal(sketch(x).double(), flat(x))


@pytest.mark.parametrize("size", [TOTAL - 1, 50, 17])
def test_it_is_linear_and_each_weight_has_one_place_and_a_sign(size):
    sketch, x, y = Sketch(gradient(0), seed=1, size=size), gradient(0), gradient(50)
    assert len(sketch(x)) == size
    together = sketch([a + 2 * b for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(together, sketch(x) + 2 * sketch(y), atol=1e-5, rtol=1e-5)
    units = torch.eye(TOTAL)
    sizes = [torch.Size(shape).numel() for shape in SHAPES]
    columns = torch.stack([sketch(unit.split(sizes)) for unit in units])
    assert torch.equal(columns.abs().sum(1), torch.ones(TOTAL))
    assert torch.equal(columns.abs().argmax(1), torch.arange(TOTAL) % size)
    assert (columns.sum(1) < 0).any()


@pytest.mark.parametrize("shared", [False, True], ids=["unlike", "alike"])
def test_inner_products_are_right_on_average_with_the_stated_variance(shared):
    size, seeds = 37, 3000
    x = gradient(0)
    y = gradient(0) if shared else gradient(100)
    found = []
    for seed in range(seeds):
        sketch = Sketch(x, seed=seed, size=size)
        found.append(float(sketch(x).double() @ sketch(y).double()))
    found, exact = torch.tensor(found).double(), float(flat(x) @ flat(y))
    squares = float(flat(x).square().sum() * flat(y).square().sum())
    variance = (squares + exact**2) / size
    assert abs(float(found.mean()) - exact) < 4 * (variance / seeds) ** 0.5
    assert 0.7 * variance < float(found.var()) < 1.3 * variance


def test_rows_that_are_alike_do_not_meet_in_one_place():
    """A matrix whose every row has one large entry, at the same column."""
    matrix = torch.zeros(4096, 64)
    matrix[:, 5] = torch.randn(4096, generator=generator(0))
    other = torch.zeros(4096, 64)
    other[:, 5] = torch.randn(4096, generator=generator(1))
    exact = float((matrix * other).sum())
    errors = []
    for seed in range(200):
        sketch = Sketch([matrix], seed=seed, size=2039)
        errors.append(float(sketch([matrix]) @ sketch([other])) - exact)
    stated = float(matrix.norm() * other.norm()) / 2039**0.5
    assert torch.tensor(errors).square().mean().sqrt() < 1.3 * stated


def test_the_seed_decides():
    x = gradient(0)
    one, again, other = (Sketch(x, seed=seed, size=29)(x) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
