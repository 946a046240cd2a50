"""What a release says of itself agrees."""

import re

import yaml

import ebft
from tests.docs.pages import ROOT


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ebft.__version__
    assert citation["preferred-citation"]["url"].endswith("2603.12248")


def test_the_changelog_begins_with_what_is_not_released_or_with_this_version():
    newest = re.search(r"^## (?:\[?)([\w.]+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest[1] in ("Unreleased", ebft.__version__)
