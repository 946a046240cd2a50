"""Test sets of translation by sacrebleu's own names, from its cache."""

import json
import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from ebft.data.test_set import TranslationTestSet
from ebft.errors import UserError

pytest.importorskip("sacrebleu")
READ = """
import json, sys
from ebft.data.test_set import TranslationTestSet
from ebft.errors import UserError
try:
    examples = TranslationTestSet(name=sys.argv[1], pair=sys.argv[2])().held_out
    print(json.dumps([(it.name, it.prompt, it.completion, it.stop) for it in examples]))
except UserError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def read(tmp_path):
    """Reads a test set with a cache of its own, in a process of its own: sacrebleu finds its cache
    when it is imported."""

    def call(name, pair, **files):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        plain = name.replace("/", "_")
        for field, text in files.items():
            (folder / f"{plain}.{pair}.{field.replace('_', '-')}").write_text(text)
        proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
        done = subprocess.run(
            [sys.executable, "-c", READ, name, pair], capture_output=True, text=True, check=True,
            env={**os.environ, **proxy, "SACREBLEU": str(tmp_path)},
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])

    return call


def test_it_is_read_from_sacrebleus_cache(read):
    found = read(
        "mtnt1.1/test",
        "fr-en",
        src="Salut\u2028toi !\nC'est {text}.\n",
        ref="Hey you!\nIt is it.\n",
    )
    assert found == [
        ["mtnt1.1/test/fr-en:1",
         "Translate this from French to English:\nFrench: Salut\u2028toi !\nEnglish:",
         " Hey you!", ["\n"]],
        ["mtnt1.1/test/fr-en:2",
         "Translate this from French to English:\nFrench: C'est {text}.\nEnglish:",
         " It is it.", ["\n"]],
    ]  # fmt: skip


def test_the_first_of_several_references_is_the_reference(read):
    from sacrebleu.dataset import DATASETS

    fields = DATASETS["wmt17/tworefs"].fieldnames("en-fi")
    assert fields[1:3] == ["ref:0", "ref:1"]
    (one,) = read("wmt17/tworefs", "en-fi", **{it.replace(":", "_"): f"{it}\n" for it in fields})
    assert one[1:3] == ["Translate this from English to Finnish:\nEnglish: src\nFinnish:", " ref:0"]


def test_a_set_that_cannot_be_downloaded_is_said(read):
    said = read("mtnt2019", "en-fr")
    assert said.startswith("data.name = mtnt2019: sacrebleu cannot get it (")
    assert said.endswith("put the set into its cache: sacrebleu -t mtnt2019 -l en-fr --echo src")


def test_files_of_different_lengths_are_refused(read):
    said = read("mtnt2019", "en-fr", src="a\nb\n", ref="a\n")
    assert "have different numbers of lines" in said


def test_names_that_sacrebleu_does_not_have():
    with pytest.raises(UserError, match=r"sacrebleu has no such test set.*wmt22"):
        TranslationTestSet(name="wmt222", pair="de-en")()
    with pytest.raises(UserError, match=r"data\.pair = de-ru: wmt22 has cs-en, cs-uk, de-en"):
        TranslationTestSet(name="wmt22", pair="de-ru")()
    with pytest.raises(ValidationError, match="is no pair of languages"):
        TranslationTestSet(name="wmt22", pair="german")
    with pytest.raises(ValidationError, match=r"Set languages\.liv=NAME"):
        TranslationTestSet(name="wmt22", pair="en-liv")
    with pytest.raises(ValidationError, match=r"has no \{text\}"):
        TranslationTestSet(name="wmt22", pair="de-en", template="Translate")
