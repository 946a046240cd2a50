"""What `ebft.lazy` stands in for is the real thing once it is used."""

import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from ebft import lazy
from ebft.transforms.gram import gram_roots


def test_names_are_those_of_torch():
    assert lazy.torch.float32 is torch.float32
    assert lazy.torch.nn.functional is torch.nn.functional
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lazy.torch.no_such_name


def test_tensors_are_its_instances():
    assert isinstance(torch.zeros(2), lazy.Tensor)
    assert isinstance(torch.nn.Parameter(torch.zeros(2)), lazy.Tensor)
    assert not isinstance([0.0, 0.0], lazy.Tensor)


def test_no_grad_is_off_within_the_function_alone():
    @lazy.no_grad
    def double(x: torch.Tensor, *, times: int = 2) -> torch.Tensor:
        """Doubles."""
        return x * times

    x = torch.ones(2, requires_grad=True)
    assert not double(x, times=3).requires_grad
    assert (x * 2).requires_grad
    assert double.__name__ == "double"


def test_shapes_are_checked_where_tensor_is_the_stand_in():
    with pytest.raises(TypeCheckError):
        gram_roots(torch.zeros(3))


def test_nothing_is_imported_before_a_name_is_used():
    program = (
        "import sys; from ebft.lazy import torch, transformers, Tensor; "
        "assert not {'torch', 'transformers'} & sys.modules.keys(); "
        "torch.float32; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
