import sys

import pytest
import torch

from tests.benchmarks.peak import MIB, peak_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_the_peak_is_what_was_held_at_once_whatever_came_before():
    def hold(mib):
        # In pieces that malloc serves from its heap, which it keeps when they are freed.
        return lambda: [torch.ones(MIB // 4) for _ in range(mib)]

    for mib in (300, 40, 150):
        assert peak_memory(hold(mib)) / MIB == pytest.approx(mib, rel=0.1, abs=4)
