"""A document as the model sees it: its tokens, which of them are trained on, and the anchors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.text import Text

from ebft.models.tokenizer import token_texts
from ebft.printable import printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_MOST = 120
"""Tokens of one kind in a row that are shown; of more, the first and the last."""
LAST = 40
ANCHOR, LIGHT, HEAVY = "▼", "│", "┃"
STYLES = {False: "cyan", True: "bold green"}
LEGEND = (
    f"{LIGHT} begins a token that is only read, {HEAVY} one of the cross-entropy; "
    f"{ANCHOR} is an anchor, where rollouts start; a bar without text begins a part of the "
    "character that follows"
)


def document_view(
    tokens: Sequence[int],
    is_trained: Sequence[bool],
    anchors: Collection[int],
    tokenizer: PreTrainedTokenizerBase,
) -> Text:
    """Returns the tokens of a document as text in colours.

    Each token begins with a bar, which is heavy for a token that is trained on, so that the text
    says the same without colours. Special tokens are underlined, and line ends are also written.
    """
    texts = token_texts(tokens, tokenizer)
    special = set(tokenizer.all_special_ids)
    shown = Text()
    for trained, group in groupby(range(len(tokens)), key=lambda place: is_trained[place]):
        places = list(group)
        cut = len(places) - AT_MOST
        for number, place in enumerate(places):
            if cut > 0 and AT_MOST - LAST <= number < AT_MOST - LAST + cut:
                if number == AT_MOST - LAST:
                    shown.append(f" … {cut} tokens … ", "dim")
                continue
            if place in anchors:
                shown.append(ANCHOR, "bold magenta")
            shown.append(HEAVY if trained else LIGHT, "dim")
            style = STYLES[trained] + (" underline" if tokens[place] in special else "")
            text = texts[place].replace("\n", "\\n\n")
            shown.append(printable(text, keep="\n"), style)
    shown.rstrip()
    return shown
