"""From examples to documents: tokenized, cut to length, and accepted by the plan."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from ebft.console import Bar
from ebft.data.conversations import check_template, conversation_documents
from ebft.data.corpus import Corpus, InMemory
from ebft.data.mistakes import Mistakes
from ebft.data.on_demand import OnDemand
from ebft.errors import UserError
from ebft.lazy import torch
from ebft.models.tokenizer import begins_with, encode, encode_completions
from ebft.options import Options
from ebft.parts.interfaces import Plan
from ebft.parts.splits import Example
from ebft.rollout.records import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("ebft")

BATCH = 64
LARGE = 64_000_000
"""Characters of a split from which its documents are tokenized on demand: before that, all of them
take less than about a minute."""
MEASURED = 256
"""Texts whose mean length stands for that of all."""
TOO_SHORT = "too short for the plan"
TOO_LONG = "longer than documents.length"
SHORT = "shorter than documents.shortest"
EMPTY = "empty"
NOT_EMBEDDED = "with a token that the model has no embedding for"
TOO_DEEP = "with rollouts that end beyond the model's context length"
NO_PROMPT = "without a prompt"
NO_ANCHOR = "without an anchor in the plan"


class DocumentOptions(Options):
    """How texts become documents."""

    length: int = Field(
        ge=2,
        description="largest number of tokens of a document; longer raw text is cut into "
        "consecutive documents, a longer prompt with its completion is dropped, and so is a longer "
        "conversation",
    )
    shortest: int = Field(
        1,
        ge=1,
        description="smallest number of tokens of a document; shorter ones are dropped. To give "
        "runs with different plans the same documents, set the length that the longest plan needs",
    )
    mean_length: int | None = Field(
        None,
        ge=2,
        description="tokens of an average document, where they are known: --dry-run then counts "
        "tokens and FLOPs of such a document, and memory for `length`; null: all have `length`. "
        "No run depends on it",
    )
    on_demand: bool | Literal["auto"] = Field(
        "auto",
        description="tokenize a document when a step needs it, for data that take long to tokenize "
        "or do not fit into memory; raw text is then cut by characters, at ends of lines, and each "
        f"turn of a conversation is a document. auto: a split of more than {LARGE:,} characters",
    )
    characters_per_token: float = Field(
        3.0,
        gt=0,
        description="with on_demand, characters of raw text per token of a document. Use the "
        "mean of the data or a little less, so that few tokens are cut off",
    )

    @model_validator(mode="after")
    def _mean_is_at_most_the_longest(self) -> Self:
        if self.mean_length is not None and self.mean_length > self.length:
            raise ValueError(
                f"mean_length = {self.mean_length}: is more than length = {self.length}, which no "
                "document exceeds"
            )
        return self


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The documents of a split, and how many were dropped for each reason.

    Documents that are tokenized on demand are not dropped beforehand, so none is counted.
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
    """Returns the documents of the examples that the plan accepts, in order.

    Documents are dropped if they and their rollouts have more tokens than the model `reads` (None:
    no limit), or if they have a token id of `embeds` or more, for which the model has no embedding.
    Raises `UserError` with the counts if none is left, and if there are no examples.
    """
    if len(examples) == 0:
        trains = split == "train"
        copies = ", or only copies of held-out texts" if trains else ""
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

    if options.on_demand is True or (options.on_demand == "auto" and is_large(examples)):
        log.info("%s: documents are tokenized on demand (documents.on_demand)", split)
        return Tokenized(_on_demand(examples, tokenizer, options, start, why_not), {})
    log.info("tokenizing %s: %s texts …", split, f"{len(examples):,}")
    dropped: Counter[str] = Counter()
    too_long: list[int] = []
    chats = 0

    def accepted() -> Iterator[Document]:
        nonlocal chats
        with (
            Mistakes() as mistakes,
            Bar(
                total=len(examples), desc=f"tokenizing {split}", delay=2, leave=False, disable=None
            ) as bar,
        ):
            for at in range(0, len(examples), BATCH):
                batch = examples[at : at + BATCH]
                chats += sum(bool(example.messages) for example in batch)
                for document in _documents(batch, tokenizer, options.length, start, mistakes):
                    if (reason := why_not(document)) is None:
                        yield document
                        continue
                    dropped[reason] += 1
                    if reason == TOO_LONG:
                        too_long.append(document.tokens.numel())
                bar.update(len(batch))

    documents = InMemory(accepted())
    if 0 < chats < len(examples):
        log.warning(
            "%s: has %s conversations, and %s texts to which no chat template is applied",
            split, f"{chats:,}", f"{len(examples) - chats:,}",
        )  # fmt: skip
    if not documents:
        counts = "; ".join(f"{count} {reason}" for reason, count in dropped.items())
        fix = (
            f"the plan needs {plan.shortest_document} tokens or more, and documents.length "
            f"allows {options.length}; give longer texts, or change documents.length or the plan"
        )
        if NO_PROMPT in dropped:
            fix = (
                "plan completion needs a prompt; name its column (data.prompt), choose a data "
                "source that has prompts, or set plan=strided"
            )
        elif TOO_DEEP in dropped:
            fix = f"the model reads {reads} tokens; make plan.rollout_length or the prompts shorter"
        elif TOO_LONG in dropped:
            fix = (
                f"the shortest of them has {min(too_long)} tokens; set documents.length="
                f"{min(too_long)} or more"
            )
        raise UserError(
            f"data: none of {sum(dropped.values())} {split} documents can be used ({counts}): {fix}"
        )
    return Tokenized(documents, dropped)


def is_large(examples: Sequence[Example]) -> bool:
    """Whether the examples have more than `LARGE` characters, by the mean of some of them."""
    count = min(MEASURED, len(examples))
    some = [examples[number * len(examples) // count] for number in range(count)]
    # The completion of a conversation is all of its messages.
    characters = sum(len(it.completion) + (0 if it.messages else len(it.prompt)) for it in some)
    return characters / count * len(examples) > LARGE


def why_dropped(
    document: Document,
    options: DocumentOptions,
    plan: Plan,
    reads: int | None,
) -> str | None:
    """Returns why a document cannot be used; None if it can."""
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
    # Plans whose rollouts end at end-of-sequence start them at the end of a prompt.
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
        # Raw text was already cut by characters, so only its first document is used.
        first = next(_documents([example], tokenizer, options.length, start))
        is_whole = example.prompt or example.messages
        return first if is_whole else replace(first, name=example.name)

    width = max(round(options.length * options.characters_per_token), 1)
    documents = OnDemand(examples, tokenize_one, why_not, width=width)
    documents[0]  # raises if nothing fits, before a model is trained on it
    return documents


def _documents(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    start: list[int],
    mistakes: Mistakes | None = None,
) -> Iterator[Document]:
    """Yields the documents of the examples. Conversations that cannot be one are added to
    `mistakes`; None: the first one raises `UserError`."""
    if any(example.messages for example in examples):
        check_template(tokenizer)
    texts = [example for example in examples if not example.messages]
    raw = iter(encode(tokenizer, [e.completion for e in texts if not e.prompt]))
    prompts = iter(encode(tokenizer, [e.prompt for e in texts if e.prompt]))
    completions = iter(encode_completions(tokenizer, [e.completion for e in texts if e.prompt]))
    for example in examples:
        if example.messages:
            try:
                turns = list(conversation_documents(example, tokenizer, start))
            except UserError as error:
                if mistakes is None:
                    raise
                mistakes.add(error, name=example.name)
                continue
            yield from turns
            continue
        if example.prompt:
            prompt, completion = next(prompts), next(completions)
            if tokenizer.eos_token_id is None:
                raise UserError(
                    "model.path: its tokenizer has no end-of-sequence token, which is needed at "
                    "the end of completions; give another model, or raw text without prompts"
                )
            # Tokenized separately, so that the prompt has the tokens it has without a completion.
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
                stop=example.stop,
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
    """Returns a text's tokens without `start`, if the text spells these tokens too."""
    return tokens[len(start) :] if tokens[: len(start)] == start else tokens
