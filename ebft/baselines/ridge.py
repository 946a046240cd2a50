"""Ridge regression on all rows so far, of which only moments are kept."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ebft.distributed.processes import ONE_PROCESS, Processes
from ebft.errors import NumericalError


class RunningRidge:
    """y ≈ ȳ + (x − x̄)B with B = (C_xx + λ c I)⁻¹ C_xy, where c is the mean variance of x's columns.

    Means and covariances are over all rows seen, of which those of each earlier call weigh `decay`
    times as much. Moments are float64, because they are differences of large numbers.
    """

    def __init__(self, ridge: float, decay: float, processes: Processes = ONE_PROCESS) -> None:
        self._ridge, self._decay, self._processes = ridge, decay, processes
        self._moments: dict[str, Tensor] | None = None
        self._fit: dict[str, Tensor] | None = None

    @property
    def fitted(self) -> bool:
        """Whether it has seen any rows."""
        return self._fit is not None

    def predict(self, x: Float[Tensor, "*N F"]) -> Float[Tensor, "*N D"]:
        """Predictions from the rows of earlier calls of `absorb`, in the type of x."""
        assert self._fit is not None
        fit = {name: value.to(x) for name, value in self._fit.items()}
        return (x - fit["mean_x"]) @ fit["B"] + fit["mean_y"]

    def absorb(self, x: Float[Tensor, "N F"], y: Float[Tensor, "N D"]) -> None:
        """Adds rows, those of all processes, and fits anew.

        Raises `NumericalError` if the fit is not finite.
        """
        x, y = x.double(), y.double()
        new = {
            "count": x.new_tensor(float(len(x))),
            "x": x.sum(0), "y": y.sum(0), "xx": x.mT @ x, "xy": x.mT @ y,
        }  # fmt: skip
        new = {name: self._processes.sum(value) for name, value in new.items()}
        if (old := self._moments) is not None:
            new = {
                name: self._decay * old[name].to(value.device) + value
                for name, value in new.items()
            }
        self._moments = new
        mean_x, mean_y = new["x"] / new["count"], new["y"] / new["count"]
        C_xx = new["xx"] / new["count"] - torch.outer(mean_x, mean_x)
        C_xy = new["xy"] / new["count"] - torch.outer(mean_x, mean_y)
        level = C_xx.diagonal().mean()
        if level > 0:
            C_xx.diagonal().add_(self._ridge * level)
            B = torch.linalg.solve(C_xx, C_xy)
        else:  # all rows are equal: the mean is all there is to predict
            B = torch.zeros_like(C_xy)
        if not B.isfinite().all():
            raise NumericalError("the regression of features on states is not finite")
        self._fit = {"B": B, "mean_x": mean_x, "mean_y": mean_y}

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self._moments, "fit": self._fit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._moments, self._fit = state["moments"], state["fit"]
