"""The Markdown of this repository, taken apart."""

import re
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("plugins/*/README.md"),
    ]
)
PARSER = MarkdownIt("commonmark").enable("table")


class Block(NamedTuple):
    """A block of code; `language` is empty if it is indented rather than fenced."""

    language: str
    title: str
    text: str
    line: int


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Every block of code of a page, in order."""
    found = []
    for token in PARSER.parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            language, _, rest = token.info.partition(" ")
            title = re.fullmatch(r'(?:title="(.*)")?', rest.strip())
            assert title, f"{name_of(page)}: {token.info!r}: only a title stands beside a language"
            found.append(Block(language, title[1] or "", token.content, token.map[0] + 1))
    return found


def inline_code(page: Path) -> list[str]:
    """Everything that stands between single backticks."""
    return [
        child.content
        for token in PARSER.parse(page.read_text(encoding="utf-8"))
        if token.type == "inline"
        for child in token.children
        if child.type == "code_inline"
    ]


def links(page: Path) -> list[str]:
    """Where links and pictures of a page lead, those to the web left out."""
    targets = [
        child.attrs.get("href") or child.attrs.get("src")
        for token in PARSER.parse(page.read_text(encoding="utf-8"))
        if token.type == "inline"
        for child in token.children
        if child.type in ("link_open", "image")
    ]
    return [target for target in targets if not target.startswith(("http:", "https:", "#"))]
