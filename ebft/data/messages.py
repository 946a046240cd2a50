"""Conversations in the rows of a data set: checked, and as a text that a cache keeps.

Two forms are read, which are also those of TRL: a column of whole conversations, and columns of a
prompt and a completion that are lists of messages. A message is {"role": …, "content": …}, and may
have the key `reasoning_content` or call tools (`ebft.data.tools`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ebft.data.jsonl import Repeating
from ebft.data.tools import TOOL, TOOLS, read_call_fields, read_tools, tools_as_text
from ebft.data.values import check_text, listed, quoted
from ebft.errors import UserError
from ebft.parts.splits import ASSISTANT, Message

MESSAGES = "messages"
"""The option that names a column of conversations, and the field that holds one."""
REASONING = "reasoning_content"
ROLES = ("system", "user", ASSISTANT, TOOL)


def check_row(values: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, str]:
    """Returns the texts of a row by option, with its conversation as a text in `messages`.

    `values` are the row's values by option, and `places` is how errors name each. `messages` is
    empty for a row without a conversation, and a row with one has no other prompt or completion.
    Raises `UserError` beginning with a place.
    """
    texts = dict.fromkeys(values, "") | {MESSAGES: ""}
    conversations = {
        option: read_messages(value, places[option])
        for option, value in values.items()
        if option == MESSAGES or (option in ("prompt", "completion") and is_chat(value))
    }
    for option, value in values.items():
        if option == TOOLS:
            continue
        if option not in conversations and (option == "check" or not conversations):
            texts[option] = check_text(value, places[option])
    tools = read_tools(values.get(TOOLS), places.get(TOOLS, ""))
    if not conversations:
        if tools:
            raise UserError(
                f"{places[TOOLS]} has tools, and the row has no conversation in which a template "
                "could describe them; set data.tools=null"
            )
        return texts
    for option in ("prompt", "completion"):
        if MESSAGES not in conversations and option not in conversations:
            there, other = next(iter(conversations)), places.get(option)
            raise UserError(
                f"{places[there]} has the messages of a conversation there, and data.{option} "
                + ("names no column" if other is None else "has none")
                + "; set data.messages for a column of whole conversations, or give prompt and "
                "completion both as lists of messages"
            )
    last = MESSAGES if MESSAGES in conversations else "completion"
    targets = [
        replace(message, is_target=message.role == ASSISTANT) for message in conversations[last]
    ]
    _check_targets(targets, places[last])
    texts[MESSAGES] = as_text([*conversations.get("prompt", ()), *targets], tools)
    return texts


def is_chat(value: Any) -> bool:
    """Whether a value is a list of messages, also of {"from": …, "value": …}."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in value)
    )


def read_messages(value: Any, where: str) -> list[Message]:
    """Returns the messages of a list of {"role": …, "content": …}, none of them a target yet.

    Raises `UserError` beginning with `where`, and naming the message by its number.
    """
    if not isinstance(value, list) or not value:
        raise UserError(
            f"{where} has {quoted(value)} there; a conversation is a list of messages with role "
            "and content"
        )
    return [_message(item, f"{where}, message {i}") for i, item in enumerate(value, 1)]


def as_text(messages: Sequence[Message], tools: Sequence[Any] = ()) -> str:
    """Returns a conversation as one text, from which `from_text` makes it again."""
    listed = [
        [
            it.role,
            it.content,
            it.is_target,
            *([it.reasoning, it.tools] if it.reasoning or it.tools else []),
        ]
        for it in messages
    ]
    kept = {MESSAGES: listed, TOOLS: list(tools)} if tools else listed
    return json.dumps(kept, ensure_ascii=False)


def from_text(text: str) -> tuple[tuple[Message, ...], str]:
    """Returns the conversation that `as_text` wrote, and the JSON text of its tools."""
    kept = json.loads(text)
    listed, tools = (kept, []) if isinstance(kept, list) else (kept[MESSAGES], kept[TOOLS])
    messages = tuple(Message(*fields) for fields in listed)
    return messages, tools_as_text(tools)


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise UserError(f"{where} is {quoted(item)}; a message has role and content")
    # Data sets write null for the keys that other messages have.
    there = {key: value for key, value in item.items() if value is not None}
    if isinstance(item, Repeating):
        raise UserError(f"{where} has {listed(sorted(item.repeated))} more than once; keep one")
    tools = read_call_fields(there, where)
    if "tool_calls" in tools:
        there.setdefault("content", "")
    if missing := [key for key in ("role", "content") if key not in there]:
        names = "; rename from and value" if "from" in there else ""
        raise UserError(
            f"{where} has no {missing[0]!r}; there are: {listed(there)}{names}; give it, or leave "
            "the row out"
        )
    if unknown := sorted(there.keys() - {"role", "content", REASONING, *tools}):
        raise UserError(
            f"{where} has {quoted(unknown[0])}, and only role, content and {REASONING} are read; "
            "remove it"
        )
    role, reasoning = there["role"], there.get(REASONING, "")
    if role not in ROLES:
        raise UserError(f"{where} has the role {quoted(role)}; roles are {', '.join(ROLES)}")
    if not isinstance(reasoning, str):
        raise UserError(f"{where} has {quoted(reasoning)} for its {REASONING}; a text is needed")
    if reasoning and role != ASSISTANT:
        raise UserError(f"{where} has {REASONING}, which only the {ASSISTANT} has; remove it")
    content = check_text(_content(there["content"], where), where)
    return Message(
        role,
        content,
        reasoning=check_text(reasoning, where),
        tools=check_text(tools_as_text(tools), where),
    )


def _content(content: Any, where: str) -> str:
    """Returns a message's text: its content, or the texts of its parts, one after the other."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise UserError(f"{where} has {quoted(content)} for its content; a text is needed")
    texts = []
    for number, part in enumerate(content, 1):
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind != "text" or not isinstance(text, str):
            raise UserError(
                f"{where}, part {number} of its content is {quoted(part)}; only text is read, as "
                '{"type": "text", "text": …}: pictures and other parts are not supported'
            )
        texts.append(text)
    return "".join(texts)


def _check_targets(messages: Sequence[Message], where: str) -> None:
    if not any(message.is_target for message in messages):
        raise UserError(
            f"{where} has no message of the {ASSISTANT}, so there is nothing to train on; leave "
            "the row out"
        )
    for number, message in enumerate(messages, 1):
        if message.is_target and not message.content.strip() and not message.tools:
            raise UserError(
                f"{where}, message {number}: the {ASSISTANT}'s turn is empty; leave the row out"
            )
