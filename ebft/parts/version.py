"""The version and the folder of ebft. Files deep in the package take them from here, because the
package's `__init__` names files that import them."""

from pathlib import Path

__version__ = "0.1.0"
PACKAGE = Path(__file__).parents[1]
