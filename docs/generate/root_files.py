"""Markdown outside docs/ that is a page of the site too, with its links as they are from there."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:)([^)#]+)(#[^)]*)?\)")
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    **{
        f"plugins/{folder.parent.name}/README.md": f"plugins/{folder.parent.name}.md"
        for folder in sorted(ROOT.glob("plugins/*/README.md"))
    },
}
"""Where each file is, and where its page."""


def root_pages() -> dict[str, str]:
    """The pages by their paths."""
    return {
        page: as_page((ROOT / file).read_text(encoding="utf-8"), file)
        for file, page in PAGES.items()
    }


def as_page(text: str, file: str) -> str:
    """`text` of `file` with links to pages; a link to a file that is none becomes its name."""
    page = PAGES.get(file) or file.removeprefix("docs/")

    def link(match: re.Match[str]) -> str:
        mark, words, target, anchor = match.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
        linked = PAGES.get(path) or PAGES.get(f"{path}/README.md") or path
        if linked == path and not path.startswith("docs/"):
            return words if target in words else f"{words} (`{path}`)"
        linked = re.sub(r"\.ipynb$", ".md", linked)  # a notebook is a page too
        here = posixpath.dirname(page) or "."
        return f"{mark}[{words}]({posixpath.relpath(linked.removeprefix('docs/'), here)}{anchor})"

    return LINK.sub(link, text)
