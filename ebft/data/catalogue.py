"""Messages of gettext catalogues (.po, .mo), as pairs of a source text and its translation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebft.data.values import safe_name
from ebft.errors import UserError, first_line
from ebft.parts.packages import install

# %(name)s, %d, {name}, {}, <b> and &nbsp;: the same in both languages, and not words.
NO_WORDS = re.compile(r"%(\(\w+\))?[-#0 +]*[\d.]*[a-zA-Z%]|\{[^{}]*\}|<[^<>]*>|&\w+;")


@dataclass(frozen=True, slots=True)
class Message:
    """One text of a catalogue in the source language and in another.

    `catalogue` is its path without the locale's folders: "contrib/admin/django".
    """

    catalogue: str
    language: str
    number: int
    source: str
    translation: str


def read_catalogues(root: Path, language: str) -> Iterator[Message]:
    """Yields the messages under `root` that are translated into `language`, a locale's folder name.

    Plural forms (a list of texts), fuzzy and obsolete messages are skipped, and so are messages
    that are the same in both languages or have only placeholders and markup. A .mo file is read
    only if there is no .po file beside it. Raises `UserError` for a file that cannot be read.
    """
    folder = f"{language}/LC_MESSAGES"
    files = {*root.rglob(f"{folder}/*.po"), *root.rglob(f"{folder}/*.mo")}
    for file in sorted(files):
        if file.suffix == ".mo" and file.with_suffix(".po") in files:
            continue
        place = [part for part in file.relative_to(root).parts[:-3] if part != "locale"]
        catalogue = safe_name(Path(*place, file.stem))
        # Without fuzzy and obsolete entries.
        for number, entry in enumerate(_read(file).translated_entries(), 1):
            source, translation = entry.msgid.strip(), entry.msgstr.strip()
            if entry.msgid_plural or source == translation:
                continue
            if has_words(source) and has_words(translation):
                yield Message(catalogue, language, number, source, translation)


def has_words(text: str) -> bool:
    """Whether a word of two letters or more is left without placeholders and markup."""
    return bool(re.search(r"[^\W\d_]{2}", NO_WORDS.sub(" ", text)))


def words_of(text: str) -> str:
    """Returns only the words of a text: equal for texts that differ in case, punctuation,
    placeholders or markup."""
    return " ".join(re.findall(r"\w+", NO_WORDS.sub(" ", text).casefold()))


def _read(file: Path) -> Any:
    try:
        import polib
    except ImportError as error:
        raise UserError(
            f"data: gettext reads catalogues with polib; run: {install('polib')}"
        ) from error
    try:
        return polib.pofile(str(file)) if file.suffix == ".po" else polib.mofile(str(file))
    except Exception as error:  # polib raises errors of any type for damaged files
        raise UserError(f"data: {safe_name(file)}: cannot be read: {first_line(error)}") from error
