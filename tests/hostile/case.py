"""What a row of the table of hostile inputs is."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Inputs:
    """What a case makes its input from: an empty folder, a tiny model and a folder of texts."""

    folder: Path
    model: Path
    texts: Path

    def write(self, name: str, content: str | bytes) -> Path:
        """A file of this content in the folder; returns its path."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file


@dataclass(frozen=True)
class Case:
    """An input that must be refused with one line.

    `make` writes the input and returns the overrides of a tiny run of `recipe` that reads it.
    `says` is in the line: the key, the value and what is wrong. `status` is 2, or 1 where the input
    is no mistake in the recipe.
    """

    what: str
    make: Callable[[Inputs], list[str]]
    says: str
    recipe: str = "ebft_full"
    status: int = 2
    _: KW_ONLY
    whole: bool = False
    """Whether `make` returns a whole command line, and not overrides of a tiny run."""
