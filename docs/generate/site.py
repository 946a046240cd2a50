"""What mkdocs does not know: pages that are made of the code, mathematics, patterns in `nav`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from html import unescape
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs.generate.commands import commands_page
from docs.generate.hooks import hooks_page
from docs.generate.notebooks import notebook_page, notebooks
from docs.generate.parts import parts_pages
from docs.generate.recipes import recipes_page, shipped_page
from docs.generate.root_files import as_page, root_pages

MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
# Operators that are written as they are, and not as TeX commands, would pass for letters.
OPERATORS = re.compile(r"<mi>([−·×≠≤≥∼≡→∈])</mi>")
# A prime as a superscript of a subscript is too small to see; the character itself is raised.
PRIME = re.compile(r"<msup>(<mi>\w</mi>)<mi>&#x02032;</mi></msup>")
PATH = re.compile(r"<code>([\w.-]+(?:/[\w.-]+)+)</code>")


def generated_pages() -> dict[str, str]:
    """Every page that no file in docs/ is, by the path at which it would be."""
    return {
        **root_pages(),
        "reference/recipes.md": recipes_page(),
        "reference/shipped.md": shipped_page(),
        "reference/hooks.md": hooks_page(),
        "reference/commands.md": commands_page(),
        **parts_pages(),
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, then fills in the patterns of `nav`."""
    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    for notebook in notebooks():
        text, pictures = notebook_page(notebook)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    named = {entry for entry in _entries(config.nav) if "*" not in entry}
    config.nav = _filled(config.nav, [page for page in pages if page not in named])
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Links out of docs/ lead to the pages of what they name."""
    written = page.file.abs_src_path is not None  # the others are made with their links
    return as_page(markdown, f"docs/{page.file.src_uri}") if written else markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """TeX → MathML, which browsers draw by themselves; paths may be broken."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        drawn = OPERATORS.sub(r"<mo>\1</mo>", convert(unescape(match[2]), display=display))
        return PRIME.sub(r'<mrow>\1<mo lspace="0" rspace="0">′</mo></mrow>', drawn)

    # Long paths in narrow cells break between their parts.
    html = PATH.sub(lambda match: f"<code>{match[1].replace('/', '/<wbr>')}</code>", html)
    return MATHS.sub(mathml, html)


def _entries(nav: Any) -> Iterator[str]:
    match nav:
        case str():
            yield nav
        case dict():
            for entry in nav.values():
                yield from _entries(entry)
        case list():
            for entry in nav:
                yield from _entries(entry)


def _filled(nav: Any, rest: list[str]) -> Any:
    """`nav` with each pattern replaced by the pages of `rest` that it matches, and only those."""
    match nav:
        case dict():
            return {title: _filled(entry, rest) for title, entry in nav.items()}
        case list():
            filled: list[Any] = []
            for entry in nav:
                if isinstance(entry, str) and "*" in entry:
                    filled += [page for page in rest if _matches(page, entry)]
                else:
                    filled.append(_filled(entry, rest))
            return filled
        case _:
            return nav


def _matches(page: str, pattern: str) -> bool:
    return fnmatch(page, pattern) and page.count("/") == pattern.count("/")
