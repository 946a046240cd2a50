"""From a conversation to documents: the tokenizer's chat template, and the tokens of each turn.

The context of a turn is the template's text of the messages before it with the generation prompt,
which is what the model reads when it is asked to answer. The turn ends with the end-of-sequence
token that the template writes after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ebft.data.messages import REASONING
from ebft.data.tools import TOOL, call_names, tool_name
from ebft.errors import UserError, first_line
from ebft.lazy import torch
from ebft.models.tokenizer import encode, encode_completions, text_of
from ebft.parts.splits import Example, Message
from ebft.rollout.records import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `UserError` for a tokenizer without a chat template or end-of-sequence token."""
    if tokenizer.chat_template is None:
        raise UserError(
            "model.path: its tokenizer has no chat template, which conversations need; give a "
            "model that was trained for chats, or a folder in which the tokenizer has one "
            "(chat_template.jinja)"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(
            "model.path: its tokenizer has no end-of-sequence token, which ends the assistant's "
            "turns; give another model"
        )


def conversation_documents(
    example: Example, tokenizer: PreTrainedTokenizerBase, start: Sequence[int]
) -> Iterator[Document]:
    """Yields one document with all turns of a conversation, or one for each turn.

    There is one document if its tokens, those of `apply_chat_template`, begin with the context of
    each turn. A template that writes earlier turns in another way once others follow, such as one
    that leaves out their reasoning, gives a document for each turn. `start` are the tokens that the
    tokenizer puts before every text; templates spell them or not. Raises `UserError` naming the row
    for a template that refuses the conversation or does not end turns with end-of-sequence.
    """
    places = targets(example.messages)
    if places[0] == 0:
        raise UserError(
            f"data: {example.name}: begins with a turn of the assistant, which has no context; put "
            "a message of the user or the system before it, or leave the row out"
        )
    if places == [len(example.messages) - 1]:
        yield _document_of_last(example, tokenizer, start)
        return
    whole = _render(tokenizer, example, example.messages)
    tokens = encode(tokenizer, [whole])[0]
    _check_answers(tokenizer, example, whole)
    spans = [_span(tokenizer, example, place, tokens) for place in places]
    turns = [span for span in spans if span is not None]
    if len(turns) == len(spans):
        yield _document(example, tokens, turns, start)
        return
    for alone in turns_apart(example):
        yield _document_of_last(alone, tokenizer, start)


def asked_document(
    example: Example, tokenizer: PreTrainedTokenizerBase, start: Sequence[int]
) -> Document:
    """Returns the document of a conversation that the model is asked to continue: its messages with
    the generation prompt, without a turn to train on."""
    check_template(tokenizer)
    text = _context(tokenizer, example, len(example.messages))
    _check_tools(example, text)
    _check_answers(tokenizer, example, text, asked=True)
    tokens = encode(tokenizer, [text])[0]
    end = len(tokens)
    return _document(example, tokens, [(end, end)], start)


def targets(messages: Sequence[Message]) -> list[int]:
    """Returns the places of the messages to train on."""
    return [place for place, message in enumerate(messages) if message.is_target]


def turns_apart(example: Example) -> list[Example]:
    """Returns an example for each turn to train on: the conversation up to it, which it ends.

    They are named `name#1`, `name#2`, …, and are one cluster.
    """
    apart = []
    for number, place in enumerate(targets(example.messages), 1):
        before = [replace(message, is_target=False) for message in example.messages[:place]]
        apart.append(
            replace(
                example,
                name=f"{example.name}#{number}",
                cluster=example.cluster or example.name,
                messages=(*before, example.messages[place]),
            )
        )
    return apart


def _document(
    example: Example,
    tokens: Sequence[int],
    turns: Sequence[tuple[int, int]],
    start: Sequence[int],
) -> Document:
    spelled = list(tokens[: len(start)]) == list(start)
    return Document(
        example.name,
        torch.tensor(tokens, dtype=torch.long),
        turns[0][0],
        example.check,
        example.cluster,
        begins=len(start) if spelled else 0,
        turns=tuple(turns),
    )


def _document_of_last(
    example: Example, tokenizer: PreTrainedTokenizerBase, start: Sequence[int]
) -> Document:
    """Returns the document of a conversation that ends with its only turn to train on."""
    place = len(example.messages) - 1
    whole = _render(tokenizer, example, example.messages)
    _check_answers(tokenizer, example, whole)
    tokens = encode(tokenizer, [whole])[0]
    if (span := _span(tokenizer, example, place, tokens)) is not None:
        return _document(example, tokens, [span], start)
    context = _context(tokenizer, example, place)
    if not whole.startswith(context):
        raise UserError(
            f"data: {example.name}: the chat template's text of message {place + 1} does not begin "
            "with its generation prompt, so a rollout could not be compared with the message; give "
            "a model with another template, or columns of prompt and completion as texts"
        )
    # The turn begins within a token: the context keeps the tokens that it has when it is asked.
    prompt = encode(tokenizer, [context])[0]
    turn = encode_completions(tokenizer, [whole[len(context) :]])[0]
    end = _end(tokenizer, example, place, turn)
    return _document(example, [*prompt, *turn], [(len(prompt), len(prompt) + end)], start)


def _span(
    tokenizer: PreTrainedTokenizerBase, example: Example, place: int, tokens: Sequence[int]
) -> tuple[int, int] | None:
    """Returns where a turn starts and ends in the tokens of a conversation; None if these do not
    begin with those of the messages up to it."""
    up_to = _render(tokenizer, example, example.messages[: place + 1])
    asked = _context(tokenizer, example, place)
    _check_used(example, place, up_to, up_to.removeprefix(asked))
    context, turn = encode(tokenizer, [asked, up_to])
    first = len(context)
    if turn[:first] != context:
        return None
    last = first + _end(tokenizer, example, place, turn[first:])
    return (first, last) if list(tokens[:last]) == turn[:last] else None


def _check_used(example: Example, place: int, text: str, turn: str) -> None:
    """Raises `UserError` if the template does not write a turn's reasoning or calls, or the tools:
    they would be lost without a word."""
    message = example.messages[place]
    for called in call_names(json.loads(message.tools or "{}")):
        if called not in turn:
            raise UserError(
                f"data: {example.name}: the chat template does not write the call of {called!r} in "
                f"message {place + 1}; give a model whose template has tools, or leave the row out"
            )
    if message.reasoning.strip() not in text:
        raise UserError(
            f"data: {example.name}: the chat template does not write the {REASONING} of message "
            f"{place + 1}; write it into the content as the template expects it, or leave it out"
        )
    _check_tools(example, text)


def _check_tools(example: Example, text: str) -> None:
    """Raises `UserError` if the template's text has not the name of each tool."""
    for tool in json.loads(example.tools or "[]"):
        if (name := tool_name(tool)) is not None and name not in text:
            raise UserError(
                f"data: {example.name}: the chat template does not describe the tool {name!r}; "
                "give a model whose template has tools, or leave them out: of prompts, remove the "
                "field tools; of a data set, data.tools=null"
            )


def _check_answers(
    tokenizer: PreTrainedTokenizerBase, example: Example, whole: str, *, asked: bool = False
) -> None:
    """Raises `UserError` if the template, whose text is `whole`, leaves out an answer of a tool.
    `asked`: it has the generation prompt."""
    answers = [place for place, it in enumerate(example.messages) if it.role == TOOL]
    for place in answers:
        # A template may quote an answer, so its text says nothing; another one must change it.
        other = replace(example.messages[place], content=f"{example.messages[place].content} 0")
        changed = [*example.messages[:place], other, *example.messages[place + 1 :]]
        if _render(tokenizer, example, changed, asked=asked) == whole:
            raise UserError(
                f"data: {example.name}: the chat template does not write the answer of a tool in "
                f"message {place + 1}; give a model whose template has tools, or leave the row out"
            )


def _context(tokenizer: PreTrainedTokenizerBase, example: Example, place: int) -> str:
    return _render(tokenizer, example, example.messages[:place], asked=True)


def _end(
    tokenizer: PreTrainedTokenizerBase, example: Example, place: int, turn: Sequence[int]
) -> int:
    """Returns how many tokens a turn has up to the end-of-sequence token, which it includes; the
    template may write more after it."""
    eos = tokenizer.eos_token_id
    added = tokenizer.added_tokens_decoder
    found = [number for number, token in enumerate(turn, 1) if token == eos]
    # A token of ordinary text may be in the middle of an answer, which it does not end.
    if (
        found
        and not text_of([it for it in turn[found[-1] :] if it not in added], tokenizer).strip()
    ):
        return found[-1]
    written = [token for token in turn if text_of([token], tokenizer).strip()]
    remedy = "give a model whose template does"
    if written and written[-1] in added:
        last = tokenizer.convert_ids_to_tokens(written[-1])
        remedy = f"it ends turns with {last}: set model.eos_token={last!r}"
    raise UserError(
        f"data: {example.name}: the chat template does not end message {place + 1} with the "
        f"tokenizer's end-of-sequence token {tokenizer.eos_token}, with which rollouts end; "
        f"{remedy}"
    )


def _render(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    messages: Sequence[Message],
    *,
    asked: bool = False,
) -> str:
    """Returns the template's text; `asked`: with the generation prompt at its end."""
    listed = [
        {"role": it.role, "content": it.content}
        | ({REASONING: it.reasoning} if it.reasoning else {})
        | (json.loads(it.tools) if it.tools else {})
        for it in messages
    ]
    tools = json.loads(example.tools) if example.tools else None
    try:
        return str(
            tokenizer.apply_chat_template(
                listed, tools=tools, tokenize=False, add_generation_prompt=asked
            )
        )
    except Exception as error:  # a template is a program, and raises anything
        raise UserError(
            f"data: {example.name}: the chat template refuses the conversation "
            f"({first_line(error)}); change its messages, or leave the row out"
        ) from error
