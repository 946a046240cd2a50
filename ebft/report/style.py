"""The style of pictures: colours and axes, and reproducible PNG files."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from math import nan
from textwrap import wrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from ebft.printable import printable
from ebft.scoring.interval import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = (
    "#1f5fa8", "#c2571a", "#2a8f6b", "#8a4fa3", "#c79a1b", "#5a6b7d", "#b03060", "#4aa3c7",
)  # fmt: skip
GREY = "#8a94a0"
HIGH = 32
"""Characters of a label that fit beside the axes of one panel."""


def colour(number: int) -> str:
    """The colour of a line by its number."""
    return PALETTE[number % len(PALETTE)]


def style(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Styles the axes: the title on the left, no box, a light grid in the background."""
    axes.set_title(plain(title), loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel(plain(x), fontsize=9)
    axes.set_ylabel("\n".join(map(plain, wrap(y, HIGH))), fontsize=9)
    axes.tick_params(labelsize=8)
    # An offset above the axes, such as +1.08e1, would be taken for a part of the title.
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(formatter := axis.get_major_formatter(), ScalarFormatter):
            formatter.set_useOffset(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e9ed")
    axes.set_axisbelow(True)


def bars(intervals: Iterable[Interval | None]) -> list[float]:
    """The half-widths of error bars; NaN, which draws none, where there is no interval."""
    return [nan if it is None or it.too_few else it.half_width for it in intervals]


def plain(text: str) -> str:
    """Escapes a text for matplotlib, which shows text between dollar signs as a formula, and omits
    labels with a leading underscore from legends."""
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


class Picture(Figure):
    """A figure that a notebook shows, also without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self, dpi=100)


def png(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as a PNG without a date or the version of matplotlib."""
    stream = BytesIO()
    figure.savefig(stream, dpi=dpi, metadata={"Software": None})
    return stream.getvalue()
