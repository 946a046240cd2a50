"""Tools of conversations: the functions of a row, the assistant's calls of them, their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ebft.data.values import check_columns, check_text, quoted
from ebft.errors import UserError
from ebft.files import parse_json
from ebft.parts.splits import ASSISTANT

TOOLS = "tools"
"""The option that names a column of functions that a chat template describes, and the column that
is read unless the option names another."""
TOOL = "tool"
"""The role of a tool's answer."""
CALLS, ANSWERS = "tool_calls", ("tool_call_id", "name")
"""The fields of a message that calls tools, and those of a tool's answer."""
OLDER = {"function_call": f"write {CALLS}", "function": f"write the role {TOOL}"}
"""An older form of calls and of answers."""


def existing(there: Sequence[str], columns: Mapping[str, str], source: str) -> dict[str, str]:
    """Returns the columns to read by option, without a column `tools` that is not there.

    Raises `UserError` for any other that is missing, or there twice.
    """
    found = {
        option: column
        for option, column in columns.items()
        if not (option == column == TOOLS and column not in there)
    }
    check_columns(there, found, source)
    return found


def read_tools(value: Any, where: str) -> list[Any]:
    """Returns a row's functions; none for null. The value may be the JSON text of the list.

    Raises `UserError` beginning with `where`.
    """
    given = value
    if isinstance(value, str) and value.strip():
        try:
            given = parse_json(value)
        except ValueError as error:
            raise UserError(f"{where} is no JSON ({error}); give a list of functions") from error
    if given is None or given == "":
        return []
    if not isinstance(given, list):
        raise UserError(f"{where} has {quoted(value)} there; tools are a list of functions")
    for number, tool in enumerate(given, 1):
        if tool_name(tool) is None:
            raise UserError(
                f"{where}, tool {number} is {quoted(tool)}; a tool is an object with the name of a "
                'function, such as {"type": "function", "function": {"name": …}}'
            )
    tools = [_without_null(tool) for tool in given]
    check_text(tools_as_text(tools), where)
    return tools


def tools_as_text(tools: Sequence[Any] | Mapping[str, Any]) -> str:
    """Returns a row's functions, or a message's fields of calls, as the JSON text that examples and
    messages have; empty for none."""
    return json.dumps(tools, ensure_ascii=False) if tools else ""


def tool_name(tool: Any) -> str | None:
    """Returns the name of a function, which is in a field `function` or on its own."""
    if not isinstance(tool, Mapping):
        return None
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) and name else None


def read_call_fields(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the fields with which a message calls tools or answers a call, for the template.

    The arguments of a call become an object, which is what templates expect; the message may have
    the JSON text of it. Raises `UserError` beginning with `where`.
    """
    role = message.get("role")
    if older := [key for key in OLDER if key in message or key == role]:
        raise UserError(f"{where} has {older[0]!r}, an older form; {OLDER[older[0]]}")
    if role == TOOL:
        given = {key: message[key] for key in ANSWERS if key in message}
        return {key: check_text(value, f"{where}, {key}") for key, value in given.items()}
    if not message.get(CALLS):
        if CALLS in message:
            raise UserError(f"{where} has {quoted(message[CALLS])} for its {CALLS}; leave it out")
        return {}
    calls = message[CALLS]
    if role != ASSISTANT:
        raise UserError(f"{where} has {CALLS}, which only the {ASSISTANT} has; remove it")
    if not isinstance(calls, list):
        raise UserError(f"{where} has {quoted(calls)} for its {CALLS}; they are a list")
    return {CALLS: [_call(call, f"{where}, call {i}") for i, call in enumerate(calls, 1)]}


def call_names(fields: Mapping[str, Any]) -> list[str]:
    """Returns the names of the functions that a message with these fields calls."""
    return [call["function"]["name"] for call in fields.get(CALLS, [])]


def _call(call: Any, where: str) -> dict[str, Any]:
    name = tool_name(call)
    if name is None:
        raise UserError(
            f"{where} is {quoted(call)}; a call is an object with the name of a function and its "
            'arguments, such as {"type": "function", "function": {"name": …, "arguments": {…}}}'
        )
    function = call.get("function", call)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = parse_json(arguments) if arguments.strip() else {}
        except ValueError as error:
            raise UserError(f"{where}: its arguments are no JSON ({error})") from error
    if not isinstance(arguments, Mapping):
        raise UserError(
            f"{where}: its arguments are {quoted(arguments)}; give an object, whose keys are the "
            "names of the function's arguments"
        )
    wanted = {"type": "function", "function": {"name": name, "arguments": _without_null(arguments)}}
    return wanted | ({"id": call["id"]} if isinstance(call.get("id"), str) else {})


def _without_null(value: Any) -> Any:
    """Returns the value without keys whose value is null, which data sets write for the keys that
    other rows have."""
    if isinstance(value, Mapping):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value
