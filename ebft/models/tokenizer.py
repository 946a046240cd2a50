"""Texts → tokens and back, and whether the model has an embedding for each token.

Texts that begin a document are encoded in one way, and texts that continue one in another.
Decoded texts are as they are: they may spell a special token, and have the spaces that they have.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from ebft.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SPACES = ("▁", "Ġ")
"""How tokens write the space before a word: SentencePiece's, and byte-level BPE's."""
PART = "\N{REPLACEMENT CHARACTER}"
"""What stands for a part of a character."""
MOST_PARTS = 8
"""Tokens that are tried together: a character has at most four bytes."""
NO_TEXT = "model.path: its tokenizer has tokens for no text; give another model"
SURROGATE = re.compile("[\ud800-\udfff]")
MARKS = ("\n", "|", "x")
"""Texts that another is put after, so that it does not begin the whole."""


def begins_with(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that this tokenizer puts before a text, if it does: models trained with them, a
    beginning-of-sequence token for one, need them in front of every document, cut ones too.

    Raises `UserError` for a tokenizer that has no token for any text.
    """
    for text, alone in _known_texts(tokenizer):
        whole: list[int] = tokenizer(text).input_ids
        for at in range(len(whole) - len(alone) + 1):
            if whole[at : at + len(alone)] == alone:
                return whole[:at]
    raise UserError(NO_TEXT)


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text, without any that the tokenizer would put before or after it.

    Raises `UserError` for a text with half of a surrogate pair, which is no character.
    """
    if not texts:  # which tokenizers take for one text
        return []
    for text in texts:
        if (half := SURROGATE.search(text)) is not None:
            near = ascii(text[max(half.start() - 20, 0) : half.end()])
            raise UserError(
                f"data: a text has half of a surrogate pair, which is no character, at the end of "
                f"{near}; take it out"
            )
    # verbose=False: a text longer than the model's context is cut, so no warning about it.
    encoded = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
    )
    ids: list[list[int]] = encoded.input_ids
    return ids


def encode_completions(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts that continue a prompt.

    Llama's tokenizers put a space before each text that they encode. That is right before a
    prompt, but between a prompt and its completion it would change the text. Raises `UserError`
    for a tokenizer whose space cannot be avoided.
    """
    _, ids = next(_known_texts(tokenizer), ("", []))
    if not "".join(tokenizer.convert_ids_to_tokens(ids)).startswith(SPACES):
        return encode(tokenizer, texts)
    return [_encode_after_mark(tokenizer, text) for text in texts]


def _encode_after_mark(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    for mark in MARKS:
        before, whole = encode(tokenizer, [mark, mark + text])
        # Else the mark and the text share a token, or the tokenizer drops the mark by itself.
        if before and whole[: len(before)] == before:
            return whole[len(before) :]
    raise UserError(
        f"model.path: its tokenizer puts a space before the completion {text[:40]!r}, which would "
        "part it from its prompt; give another model"
    )


def _known_texts(tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, list[int]]]:
    """Texts that the tokenizer has tokens for, with these: a letter, and for alphabets without it
    what other tokens stand for. None begins with a space."""
    special = set(tokenizer.all_special_ids)
    for text in _candidates(tokenizer, special):
        (ids,) = encode(tokenizer, [text])
        if text and ids and special.isdisjoint(ids):
            yield text, ids


def _candidates(tokenizer: PreTrainedTokenizerBase, special: Collection[int]) -> Iterator[str]:
    yield "a"  # enough for most, and every step asks: the vocabulary is read only without it
    for number in sorted(tokenizer.get_vocab().values()):
        if number not in special:
            yield str(tokenizer.decode([number])).strip()


def text_of(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """All of the tokens as text, special ones as they are written."""
    text = tokenizer.decode(
        list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return cast(str, text)


def token_texts(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of each token by itself, with the space that it begins with.

    Of tokens that make a character together, the last has the text of all of them, and the others
    have none. Where they make none, each is as in the vocabulary.
    """
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(list(tokens))]

    def text(first: int, end: int) -> str:
        whole = text_of(list(tokens[first:end]), tokenizer)
        return f" {whole}" if names[first].startswith(SPACES) and whole[:1] != " " else whole

    found: list[str] = []
    while (first := len(found)) < len(tokens):
        end = first + 1
        while not (is_whole := PART not in text(first, end)) and _continues(tokens, end, tokenizer):
            if (end := end + 1) - first > MOST_PARTS:
                break
        if is_whole:
            found += [*[""] * (end - first - 1), text(first, end)]
        else:
            found.append(names[first])
    return found


def _continues(tokens: Sequence[int], at: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether there is a token that is a part of a character too."""
    return at < len(tokens) and PART in text_of([tokens[at]], tokenizer)


def without_start(tokens: Sequence[int], start: Sequence[int]) -> list[int]:
    """A document's tokens without `start`, which the tokenizer puts before every text."""
    start = list(start)
    return list(tokens[len(start) :] if list(tokens[: len(start)]) == start else tokens)


def without_end(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens without one end-of-sequence token, if it is the last.

    For what ends with it: completions of a prompt, and rollouts that stop there.
    """
    ends = len(tokens) > 0 and tokens[-1] == tokenizer.eos_token_id
    return list(tokens[:-1] if ends else tokens)


def embedded_tokens(model: PreTrainedModel) -> int:
    """Tokens that the model has an embedding for: those of numbers below this one."""
    rows: int = model.get_input_embeddings().weight.shape[0]
    return rows


def check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, says: str
) -> None:
    """Raises `UserError` for a token without an embedding that occurs in texts, or that ebft puts
    before or after them.

    Special tokens beyond the embedding are allowed, for models are published that way: Gemma 3's
    token for images, a `[PAD]` that was added for batches. They occur only where a text spells
    them, and such documents are dropped.
    """
    rows = embedded_tokens(model)
    special = {number for number, it in tokenizer.added_tokens_decoder.items() if it.special}
    put = {*tokenizer("").input_ids, tokenizer.eos_token_id}
    beyond = [
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and (number in put or number not in special)
    ]
    if beyond:
        number, token = min(beyond)
        raise UserError(
            f"{says}: its tokenizer has tokens that the model has no embedding for ({len(beyond)}, "
            f"the first {token!r} of number {number}, and the embedding has {rows} rows); give the "
            "tokenizer that the model was trained with, or a model with resize_token_embeddings"
        )
