"""Prompts to sample after: rows of a file or of a program, as examples and as documents.

A row is a text; or it has a `prompt`, which is a text or a list of messages, and may have a
`completion` to compare with; or it has `messages`. A conversation may have `tools`, which its
template describes. If its last message is the assistant's, samples are compared with that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ebft.data.conversations import asked_document, check_template, conversation_documents
from ebft.data.jsonl import (
    UNREADABLE,
    check_file,
    objects_of_json,
    objects_of_lines,
    open_text,
    unreadable,
)
from ebft.data.messages import MESSAGES, is_chat, read_messages
from ebft.data.tools import TOOLS, read_tools, tools_as_text
from ebft.data.values import check_text, listed, safe_name
from ebft.errors import UserError
from ebft.models.tokenizer import begins_with, encode, encode_completions, without_start
from ebft.parts.splits import ASSISTANT, Example, Message
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Contexts, Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = ".txt"
FORMATS = (".jsonl", ".json", TEXT)


def read_prompts(path: Path, key: str) -> list[Example]:
    """Returns the prompts of a .txt file, one a line, or of a .jsonl or .json file, one an object.

    Raises `UserError` beginning with `key`, and naming the row.
    """
    where, name = f"{key} = {path}", safe_name(path.name)
    check_file(path, where)
    if path.suffix not in FORMATS:
        raise UserError(f"{where}: ends in none of {', '.join(FORMATS)}")
    try:
        rows = list(_rows(path, where))
    except UNREADABLE as error:
        raise unreadable(where, error) from error
    return examples_of(rows, where, name)


def examples_of(rows: Iterable[Any], where: str, name: str) -> list[Example]:
    """Returns rows as examples named `name:row`. Raises `UserError` beginning with `where` for a
    row that is no prompt, and for no rows."""
    found = [
        _example(row, f"{where}, row {number}", f"{name}:{number}")
        for number, row in enumerate(rows, 1)
    ]
    if not found:
        raise UserError(f"{where}: has no prompts")
    return found


def prompt_contexts(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, rollout_length: int
) -> Contexts:
    """Returns a context for each prompt, the whole of it. Its reference is the completion, and is
    empty without one.

    Raises `UserError` for a prompt without tokens, and for a conversation that the tokenizer's
    chat template refuses.
    """
    start = begins_with(tokenizer)
    documents = [_document(example, tokenizer, start) for example in examples]
    spans = [document.completions[-1] for document in documents]
    return make_contexts(
        documents,
        [torch.tensor([begin]) for begin, _ in spans],
        ends=[torch.tensor([end]) for _, end in spans],
        rollout_length=rollout_length,
        stop_at_eos=tokenizer.eos_token_id is not None,
    )


def _rows(path: Path, where: str) -> Iterator[Any]:
    if path.suffix == ".jsonl":  # a mistake in the first line does not make it a list
        return (row for _, row in objects_of_lines(path, where))
    if path.suffix != TEXT:
        return objects_of_json(path, where)
    with open_text(path) as lines:
        return iter([line.rstrip("\r\n") for line in lines if line.strip()])


def _example(row: Any, where: str, name: str) -> Example:
    if isinstance(row, str):
        row = {"prompt": row}
    if not isinstance(row, Mapping):
        raise UserError(f"{where} is a {type(row).__name__}; a prompt is a text or a dict")
    # Data sets write null for the columns that other rows have.
    row = {key: value for key, value in row.items() if value is not None}
    tools = read_tools(row.get(TOOLS), f"{where}: {TOOLS}")
    if MESSAGES in row:
        if row.get("completion", "") != "":
            raise UserError(
                f"{where} has messages and a completion; leave one of them out, or give prompt and "
                "completion"
            )
        messages = read_messages(row[MESSAGES], f"{where}: messages")
        return _conversation(messages, tools, where, name)
    if "prompt" not in row:
        raise UserError(f"{where} has no 'prompt' or 'messages'; there are: {listed(row)}")
    prompt, completion = row["prompt"], row.get("completion", "")
    if is_chat(prompt):
        messages = read_messages(prompt, f"{where}: prompt")
        if is_chat(completion):
            messages += read_messages(completion, f"{where}: completion")
            if messages[-1].role != ASSISTANT:
                raise UserError(
                    f"{where}: completion ends with a message of the {messages[-1].role}; it is "
                    f"compared with samples, so the {ASSISTANT}'s must be the last"
                )
        elif completion != "":
            text = check_text(completion, f"{where}: completion")
            messages.append(Message(ASSISTANT, text))
        return _conversation(messages, tools, where, name)
    if tools:
        raise UserError(
            f"{where} has tools, and its prompt is no conversation in which a template could "
            "describe them; give the prompt as a list of messages, or leave the tools out"
        )
    return Example(
        name,
        check_text(completion, f"{where}: completion"),
        check_text(prompt, f"{where}: prompt"),
        check_text(row.get("check", ""), f"{where}: check"),
    )


def _conversation(
    messages: Sequence[Message], tools: Sequence[Any], where: str, name: str
) -> Example:
    *before, last = messages
    described = tools_as_text(tools)
    if last.role != ASSISTANT:
        return Example.of_messages(name, messages, tools=described)
    if not last.content.strip():
        raise UserError(f"{where}: the last message is empty; leave it out to have it written")
    answered = [*before, replace(last, is_target=True)]
    return Example.of_messages(name, answered, tools=described)


def _document(
    example: Example, tokenizer: PreTrainedTokenizerBase, start: Sequence[int]
) -> Document:
    if example.messages:
        check_template(tokenizer)
        if not example.messages[-1].is_target:
            return asked_document(example, tokenizer, start)
        (document,) = conversation_documents(example, tokenizer, start)
        return document
    prompt = [*start, *without_start(encode(tokenizer, [example.prompt])[0], start)]
    if not prompt:
        raise UserError(f"{example.name}: the prompt is empty, so there is nothing to continue")
    completion = (
        encode_completions(tokenizer, [example.completion])[0] if example.completion else []
    )
    end = [tokenizer.eos_token_id] if completion and tokenizer.eos_token_id is not None else []
    tokens = torch.tensor([*prompt, *completion, *end], dtype=torch.long)
    return Document(example.name, tokens, len(prompt), example.check, begins=len(start))
