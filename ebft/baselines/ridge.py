"""Ridge regression on the rows of all earlier calls, of which only moments are kept."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.errors import NumericalError

ROWS = 4096
"""Rows that are converted to float64 at a time."""


class RunningRidge:
    """y ≈ ȳ + (x − x̄)B with B = (C_xx + λ c I)⁻¹ C_xy, where c is the mean variance of x's columns.

    Means and covariances are over all rows that were added. At each call of `absorb`, the weight of
    the rows of earlier calls is multiplied by `decay`. Moments are float64, because covariances are
    differences of large numbers.
    """

    def __init__(self, ridge: float, decay: float, processes: Processes = ONE_PROCESS) -> None:
        self._ridge, self._decay, self._processes = ridge, decay, processes
        self._moments: dict[str, Tensor] | None = None
        self._fit: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def has_rows(self) -> bool:
        """Whether there is anything to predict from."""
        return self._moments is not None

    def predict(self, x: Float[Tensor, "*N F"]) -> Float[Tensor, "*N D"]:
        """Predictions from the rows of earlier calls of `absorb`, in the type of x.

        Raises `NumericalError` if the regression is not finite.
        """
        assert self._moments is not None
        if self._fit is None:
            self._fit = fit(
                {name: it.to(x.device) for name, it in self._moments.items()}, self._ridge
            )
        mean_x, B, mean_y = (value.to(x) for value in self._fit)
        return (x - mean_x) @ B + mean_y

    def absorb(self, x: Float[Tensor, "N F"], y: Float[Tensor, "N D"]) -> None:
        """Adds rows: those of all processes."""
        F, D = x.shape[1], y.shape[1]
        new = {
            name: torch.zeros(shape, dtype=torch.float64, device=x.device)
            for name, shape in {"count": (), "x": F, "y": D, "xx": (F, F), "xy": (F, D)}.items()
        }
        for some_x, some_y in zip(torch.split(x, ROWS), torch.split(y, ROWS), strict=True):
            a, b = some_x.double(), some_y.double()
            new["count"] += len(a)
            new["x"] += a.sum(0)
            new["y"] += b.sum(0)
            new["xx"] += a.mT @ a
            new["xy"] += a.mT @ b
        new = {name: self._processes.sum(value) for name, value in new.items()}
        if (old := self._moments) is not None:
            new = {
                name: self._decay * old[name].to(value.device) + value
                for name, value in new.items()
            }
        self._moments, self._fit = new, None

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._moments, self._fit = state["moments"], None


def fit(moments: dict[str, Tensor], ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Returns x̄, B and ȳ of `RunningRidge`. Raises `NumericalError` if they are not finite."""
    count = moments["count"]
    mean_x, mean_y = moments["x"] / count, moments["y"] / count
    C_xx = moments["xx"] / count - torch.outer(mean_x, mean_x)
    C_xy = moments["xy"] / count - torch.outer(mean_x, mean_y)
    level = C_xx.diagonal().mean()
    if level <= 0:  # all rows are equal: the mean is all there is to predict
        return mean_x, torch.zeros_like(C_xy), mean_y
    C_xx.diagonal().add_(ridge * level)
    B, failed = torch.linalg.solve_ex(C_xx, C_xy)
    if failed or not B.isfinite().all():
        raise NumericalError("the regression of features on the states before tokens is not finite")
    return mean_x, B, mean_y
