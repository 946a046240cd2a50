"""HTML pages of one file: runs, samples and studies have the same style, in light and dark."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ebft.printable import printable
from ebft.report.style import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OWN = "ebft.report"
"""The package of the templates that every page is made from: `page.html` and `parts.html`."""

DPI = 120
"""Of pictures on a page. It has a dozen, so a file of pictures for print would be large."""


def render(template: str, *, package: str = OWN, **values: Any) -> str:
    """Returns a page as one HTML file that needs no other.

    `template` is a file in the folder `templates` of `package`. Text is escaped.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, OWN))]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_printable,
    )  # fmt: skip
    return environment.get_template(template).render(**values)


def embedded(picture: Figure | bytes) -> str:
    """Returns a picture, or the PNG of one, as the text that `<img src>` shows."""
    drawn = picture if isinstance(picture, bytes) else png(picture, dpi=DPI)
    return f"data:image/png;base64,{base64.b64encode(drawn).decode()}"


def _printable(value: object) -> object:
    """Makes a text printable; Jinja then escapes it for HTML. What a macro has written is HTML."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value, keep="\n")
    return value
