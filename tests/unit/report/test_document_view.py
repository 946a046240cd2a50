"""A document is shown token by token: what is trained on, and where rollouts start."""

import re

from ebft.report.document_view import AT_MOST, document_view
from tests.chat import chat_tokenizer
from tests.tiny import tiny_tokenizer


def pieces(text):
    """The bar and the text of each token that is shown."""
    return re.findall("(▼?[│┃])([^│┃▼]*)", text.plain)


def test_every_token_has_its_bar():
    tokenizer = chat_tokenizer("ChatML")
    ids = tokenizer("<|im_start|>in the\nend<|im_end|>").input_ids
    view = document_view(ids, [False] * 4 + [True] * (len(ids) - 4), {4}, tokenizer)
    expected = ["<|im_start|>", "in", " the", "\\n\n", "e", "n", "d", "<|im_end|>"]
    bars = ["│"] * 4 + ["▼┃"] + ["┃"] * 3
    assert pieces(view) == list(zip(bars, expected, strict=True))
    underlined = [view.plain[it.start : it.end] for it in view.spans if "underline" in it.style]
    assert underlined == ["<|im_end|>"]


def test_a_part_of_a_character_and_an_escape():
    tokenizer = chat_tokenizer("ChatML")
    ids = tokenizer("é\x1b ü").input_ids
    view = document_view(ids, [False] * len(ids), set(), tokenizer)
    assert [text for _, text in pieces(view)] == ["", "é", "\\x1b", " ", "", "ü"]


def test_a_part_of_a_character_without_the_rest():
    tokenizer = chat_tokenizer("ChatML")
    first, rest, letter = tokenizer("éa").input_ids
    for ids, expected in (
        ([first], ["Ã"]),
        ([first, letter], ["Ã", "a"]),
        ([rest, first], ["©", "Ã"]),
        ([first, first, rest, letter], ["Ã", "", "é", "a"]),
    ):
        view = document_view(ids, [False] * len(ids), set(), tokenizer)
        assert [text for _, text in pieces(view)] == expected


def test_of_many_tokens_in_a_row_the_middle_is_left_out():
    tokenizer = tiny_tokenizer()
    many = AT_MOST + 7
    ids = [3] * many + [4]
    view = document_view(ids, [False] * many + [True], {many}, tokenizer)
    found = pieces(view)
    assert len(found) == AT_MOST + 1
    assert sum(" … 7 tokens … " in text for _, text in found) == 1
    assert found[-1] == ("▼┃", "b")
