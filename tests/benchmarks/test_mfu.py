"""The GPU's benchmark, small and on a CPU: that it runs where it can be tried."""

import pytest

from tests.benchmarks.mfu import main


@pytest.mark.parametrize("attention", ["tree", "dense"])
def test_it_runs(capsys, attention):
    main(
        ["--model=tiny", "--device=cpu", "--precision=float32", f"--attention={attention}",
         "--length=40", "--documents=2", "--micro-batch=2"]
    )  # fmt: skip
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == ["sampling", "features", "training", "whole"]
