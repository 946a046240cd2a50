"""From examples to documents: tokens, cut to length, and only those that the plan accepts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from ebft.console import Bar
from ebft.data.corpus import Corpus, InMemory
from ebft.data.on_demand import OnDemand
from ebft.errors import UserError
from ebft.models.tokenizer import begins_with, encode, encode_completions
from ebft.options import Options
from ebft.parts.interfaces import Plan
from ebft.parts.splits import Example
from ebft.rollout.records import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 64
TOO_SHORT = "too short for the plan"
TOO_LONG = "longer than documents.length"
SHORT = "shorter than documents.shortest"
EMPTY = "empty"
NOT_EMBEDDED = "with a token that the model has no embedding for"
TOO_DEEP = "with rollouts that end beyond what the model reads"
NO_PROMPT = "without a prompt"
NO_ANCHOR = "without an anchor, says the plan"


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
    on_demand: bool = Field(
        False,
        description="tokenise a document when a step asks for it, for data larger than memory; "
        "raw text is then cut by its characters, at ends of lines",
    )
    characters_per_token: float = Field(
        3.0,
        gt=0,
        description="with on_demand, how much raw text a document is cut from: so many characters "
        "for each of its tokens. The text's own figure or a little less wastes little",
    )


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The documents of a split, and how many were dropped for each reason.

    Documents that are tokenised on demand are not dropped beforehand, so none is counted.
    """

    documents: Corpus
    dropped: Mapping[str, int]


def tokenize(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: DocumentOptions,
    plan: Plan,
    *,
    split: str,
    reads: int | None = None,
    embeds: int | None = None,
) -> Tokenized:
    """Every document of the examples that the plan accepts, in order.

    Left out are those whose rollouts would be longer than what the model `reads` (None: no limit),
    and those with a token whose number is `embeds` or more, which the model has no embedding for.
    Raises `UserError` with the counts if none is left, and if there are no examples.
    """
    if len(examples) == 0:
        trains = split == "train"
        copies = ", or only copies of what is held out" if trains else ""
        where = " (gsm8k: data.train_path)" if trains else ""
        raise UserError(
            f"data: the source has no {split} texts{copies}; give it some{where}, or choose another"
        )
    start = begins_with(tokenizer)
    if options.length <= len(start):
        raise UserError(
            f"documents.length = {options.length}: leaves no room for a text after the "
            f"{len(start)} tokens that the tokenizer puts before it; set documents.length="
            f"{len(start) + 1} or more"
        )

    def why_not(document: Document) -> str | None:
        if embeds is not None and document.tokens.numel() and int(document.tokens.max()) >= embeds:
            return NOT_EMBEDDED
        return why_dropped(document, options, plan, reads)

    if options.on_demand:
        return Tokenized(_on_demand(examples, tokenizer, options, start, why_not), {})
    documents: list[Document] = []
    dropped: Counter[str] = Counter()
    shortest = sys.maxsize
    with Bar(
        total=len(examples), desc=f"tokenizing {split}", delay=3, leave=False, disable=None
    ) as bar:
        for at in range(0, len(examples), BATCH):
            batch = examples[at : at + BATCH]
            for document in _documents(batch, tokenizer, options.length, start):
                if (reason := why_not(document)) is None:
                    documents.append(document)
                    continue
                dropped[reason] += 1
                if reason == TOO_LONG:
                    shortest = min(shortest, document.tokens.numel())
            bar.update(len(batch))
    if not documents:
        counts = "; ".join(f"{count} {reason}" for reason, count in dropped.items())
        fix = (
            f"the plan needs {plan.shortest_document} tokens or more, and documents.length "
            f"allows {options.length}; give longer texts, or change documents.length or the plan"
        )
        if NO_PROMPT in dropped:
            fix = (
                "plan completion goes on from a prompt; name its column (data.prompt), take a data "
                "source that has prompts, or set plan=strided"
            )
        elif TOO_DEEP in dropped:
            fix = f"the model reads {reads} tokens; make plan.rollout_length or the prompts shorter"
        elif TOO_LONG in dropped:
            fix = (
                f"the shortest of them has {shortest} tokens; set documents.length={shortest} or "
                "more"
            )
        raise UserError(
            f"data: none of {sum(dropped.values())} {split} documents can be used ({counts}): {fix}"
        )
    return Tokenized(InMemory(documents), dropped)


def why_dropped(
    document: Document,
    options: DocumentOptions,
    plan: Plan,
    reads: int | None,
) -> str | None:
    """Why a document cannot be used; None if it can."""
    if document.tokens.numel() <= document.begins:
        return EMPTY
    if document.tokens.numel() > options.length:
        return TOO_LONG
    if document.tokens.numel() < options.shortest:
        return SHORT
    if plan.accepts(document):
        return None if reads is None or _rollouts_fit(document, plan, reads) else TOO_DEEP
    if document.tokens.numel() < plan.shortest_document:
        return TOO_SHORT
    # Plans whose rollouts end go on from prompts.
    return NO_PROMPT if plan.stop_at_eos and not document.prompt_length else NO_ANCHOR


def _rollouts_fit(document: Document, plan: Plan, reads: int) -> bool:
    """Whether the plan's contexts with their rollouts have no more tokens than the model reads."""
    if document.tokens.numel() + plan.rollout_length <= reads:
        return True
    return plan([document]).reach <= reads


def _on_demand(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    options: DocumentOptions,
    start: list[int],
    why_not: Callable[[Document], str | None],
) -> OnDemand:
    def tokenize_one(example: Example) -> Document:
        # Of raw text the first cut is all: it was cut by its characters before.
        first = next(_documents([example], tokenizer, options.length, start))
        return first if example.prompt else replace(first, name=example.name)

    width = max(round(options.length * options.characters_per_token), 1)
    documents = OnDemand(examples, tokenize_one, why_not, width=width)
    documents[0]  # raises if nothing fits, before a model is trained on it
    return documents


def _documents(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, length: int, start: list[int]
) -> Iterator[Document]:
    raw = iter(encode(tokenizer, [e.completion for e in examples if not e.prompt]))
    prompts = iter(encode(tokenizer, [e.prompt for e in examples if e.prompt]))
    completions = iter(encode_completions(tokenizer, [e.completion for e in examples if e.prompt]))
    for example in examples:
        if example.prompt:
            prompt, completion = next(prompts), next(completions)
            if tokenizer.eos_token_id is None:
                raise UserError(
                    "model.path: its tokenizer has no end-of-sequence token, which completions of "
                    "a prompt end with; give another model, or raw text without prompts"
                )
            # Tokenised apart, so that the prompt's tokens are those a model is given to complete.
            prompt = [*start, *_without(start, prompt)]
            end = [] if completion[-1:] == [tokenizer.eos_token_id] else [tokenizer.eos_token_id]
            tokens = [*prompt, *completion, *end] if completion else []
            yield Document(
                example.name,
                torch.tensor(tokens, dtype=torch.long),
                len(prompt),
                example.check,
                example.cluster,
                len(start),
            )
            continue
        completion, piece = _without(start, next(raw)), length - len(start)
        for number, at in enumerate(range(0, max(len(completion), 1), piece), 1):
            tokens = [*start, *completion[at : at + piece]]
            yield Document(
                f"{example.name}#{number}",
                torch.tensor(tokens, dtype=torch.long),
                check=example.check,
                cluster=example.cluster or example.name,
                begins=len(start),
            )


def _without(start: list[int], tokens: list[int]) -> list[int]:
    """A text's tokens without those that are put before every text, should it spell them too."""
    return tokens[len(start) :] if tokens[: len(start)] == start else tokens
