"""Data source `test_set`: a test set of translation, by sacrebleu's own name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ebft.errors import UserError, first_line, suggest
from ebft.parts.packages import missing
from ebft.parts.part import Part
from ebft.parts.splits import Example, Splits

LANGUAGES: dict[str, str] = {
    "cs": "Czech", "de": "German", "en": "English", "fi": "Finnish", "fr": "French",
    "is": "Icelandic", "ja": "Japanese", "ru": "Russian", "uk": "Ukrainian", "zh": "Chinese",
}  # fmt: skip
"""What prompts call the languages of a pair."""


class TranslationTestSet(Part):
    """A sentence → its translation, of a test set such as `wmt22` or `mtnt2019`. All are held out.

    sacrebleu reads the set from its cache (`$SACREBLEU`, else `~/.sacrebleu`), or downloads it
    once. The reference is the set's first. Source: Post 2018, and for MTNT Michel & Neubig 2018.
    """

    name: str = Field(description="sacrebleu's name of the set, e.g. wmt22, mtnt1.1/test")
    pair: str = Field(description="from which language into which, e.g. de-en")
    template: str = Field(
        "Translate this from {source} to {target}:\n{source}: {text}\n{target}:",
        description="the prompt, by default ALMA's; {source} and {target} are the languages' names",
    )
    languages: Mapping[str, str] = Field(
        {}, description="names of languages in the prompt that ebft does not know, by their code"
    )

    @model_validator(mode="after")
    def _has_names(self) -> Self:
        source, dash, target = self.pair.partition("-")
        if not (dash and source and target):
            raise ValueError(f"pair = {self.pair}: is no pair of languages; give one such as de-en")
        names = LANGUAGES | dict(self.languages)
        if unknown := [code for code in (source, target) if code not in names]:
            raise ValueError(
                f"pair = {self.pair}: what is {unknown[0]} called in a prompt? Set "
                f"languages.{unknown[0]}=NAME"
            )
        if "{text}" not in self.template:
            raise ValueError(f"template = {self.template!r}: has no {{text}}")
        return self

    def missing(self) -> str | None:
        return missing("sacrebleu")

    def __call__(self) -> Splits:
        """Raises `UserError` for a set or a pair that sacrebleu does not have, or cannot get."""
        source, references = self._files()
        names = LANGUAGES | dict(self.languages)
        first, last = (names[code] for code in self.pair.split("-"))
        lines = zip(_lines(source), _lines(references), strict=True)
        try:
            return Splits(
                train=(),
                held_out=[
                    Example(
                        name=f"{self.name}/{self.pair}:{number}",
                        prompt=self.template.replace("{source}", first)
                        .replace("{target}", last)
                        .replace("{text}", text),
                        completion=f" {reference}",
                        stop=("\n",),
                    )
                    for number, (text, reference) in enumerate(lines, 1)
                ],
            )
        except ValueError as error:
            raise UserError(
                f"data.name = {self.name}: {source} and {references} have different numbers of "
                "lines; delete their folder, and sacrebleu gets the set again"
            ) from error

    def _files(self) -> tuple[str, str]:
        """Returns the files of sentences and of their first references."""
        from sacrebleu import utils

        if self.name not in (sets := utils.get_available_testsets()):
            raise UserError(
                f"data.name = {self.name}: sacrebleu has no such test set"
                f"{suggest(self.name, sets)}; `sacrebleu --list` shows them"
            )
        if self.pair not in (pairs := utils.get_langpairs_for_testset(self.name)):
            raise UserError(f"data.pair = {self.pair}: {self.name} has {', '.join(sorted(pairs))}")
        try:
            files = utils.get_reference_files(self.name, self.pair)
            return utils.get_source_file(self.name, self.pair), files[0]
        except (Exception, SystemExit) as error:  # it exits if a download fails
            raise UserError(
                f"data.name = {self.name}: sacrebleu cannot get it ({first_line(error)}); check "
                "the network, or put the set into its cache: "
                f"sacrebleu -t {self.name} -l {self.pair} --echo src"
            ) from error


def _lines(file: str) -> list[str]:
    # Not splitlines(), which also splits at other characters than the end of a line.
    return Path(file).read_text(encoding="utf-8").rstrip("\n").split("\n")
