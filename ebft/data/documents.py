"""From examples to documents: tokens, cut to length, and only those that the plan accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from tqdm import tqdm

from ebft.errors import UserError
from ebft.interfaces import Example, Plan
from ebft.parts import Options
from ebft.rollout.records import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 64
TOO_SHORT = "too short for the plan"
TOO_LONG = "longer than documents.length"
SHORT = "shorter than documents.shortest"
EMPTY = "empty"


class DocumentOptions(Options):
    """How texts become documents."""

    length: int = Field(
        ge=2,
        description="most tokens of a document; raw text is cut into consecutive documents, a "
        "prompt with its completion is dropped if it is longer",
    )
    shortest: int = Field(
        1,
        ge=1,
        description="fewest tokens of a document; shorter ones are dropped. Runs whose plans need "
        "different lengths see the same documents if this is what the longest plan needs",
    )


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The documents of a split, and how many were dropped for each reason."""

    documents: tuple[Document, ...]
    dropped: Mapping[str, int]


def tokenize(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: DocumentOptions,
    plan: Plan,
    *,
    split: str,
) -> Tokenized:
    """Every document of the examples that the plan accepts, in order.

    Raises `UserError` with the counts if none is left.
    """
    start = begins_with(tokenizer)
    documents: list[Document] = []
    dropped: Counter[str] = Counter()
    with tqdm(total=len(examples), desc=f"tokenizing {split}", delay=3, leave=False) as bar:
        for at in range(0, len(examples), BATCH):
            batch = examples[at : at + BATCH]
            for document in _documents(batch, tokenizer, options.length, start):
                tokens = document.tokens.numel()
                if tokens <= len(start):
                    dropped[EMPTY] += 1
                elif tokens > options.length:
                    dropped[TOO_LONG] += 1
                elif tokens < options.shortest:
                    dropped[SHORT] += 1
                elif not plan.accepts(document):
                    dropped[TOO_SHORT] += 1
                else:
                    documents.append(document)
            bar.update(len(batch))
    if not documents:
        counts = "; ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise UserError(
            f"data: no {split} document is left of {len(examples)} texts ({counts}): the plan "
            f"needs {plan.shortest_document} tokens or more, and documents.length allows "
            f"{options.length}; give longer texts, or change documents.length or the plan"
        )
    return Tokenized(tuple(documents), dropped)


def begins_with(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token that this tokenizer puts before a text, if it does: models trained with a
    beginning-of-sequence token need it in front of every document, cut ones too."""
    ids: list[int] = tokenizer("a").input_ids
    return ids[:1] if ids[0] == tokenizer.bos_token_id else []


def _documents(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, length: int, start: list[int]
) -> Iterator[Document]:
    completions = _encode(tokenizer, [example.completion for example in examples])
    prompts = _encode(tokenizer, [example.prompt for example in examples])
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        if example.prompt:
            # Tokenised apart, so that the prompt's tokens are those a model is given to complete.
            tokens = [*start, *prompt, *completion, tokenizer.eos_token_id]
            if not completion:
                tokens = []
            yield Document(
                example.name,
                torch.tensor(tokens, dtype=torch.long),
                len(start) + len(prompt),
                example.check,
            )
            continue
        piece = length - len(start)
        for number, at in enumerate(range(0, max(len(completion), 1), piece), 1):
            tokens = [*start, *completion[at : at + piece]]
            yield Document(
                f"{example.name}#{number}",
                torch.tensor(tokens, dtype=torch.long),
                check=example.check,
            )


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    # verbose=False: a text longer than the model's context is cut, so no warning about it.
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    ids: list[list[int]] = encoded.input_ids
    return ids
