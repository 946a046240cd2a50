# ruff: noqa: E501 — a case is one line
"""Data sets that must be refused with one line."""

import json
import os
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from tests.chat import conversation, said, write_chat_model
from tests.hostile.case import Case, Inputs

PAIRS = ["plan=completion", "~plan.start", "~plan.stride", "evaluation.evaluators=[]"]
ROW = {"q": "q", "a": "a"}
TASK = {"task_id": 601, "text": "t", "code": "c", "test_list": ["a"], "test_setup_code": ""}
CHAT = [{"role": "user", "content": "u" * 100_000}, {"role": "assistant", "content": "a"}]
ESCAPES = {f"\x1b[31m{i}\n": "" for i in range(500)}


def pairs(name: str, content: str | bytes, *more: str):
    """Overrides that read a file of this content with the columns q and a."""

    def make(inputs: Inputs) -> list[str]:
        file = inputs.write(name, content)
        columns = ["data=files", f"data.path={file}", "data.prompt=q", "data.completion=a"]
        return [*columns, *PAIRS, *more]

    return make


def rows(*rows: dict, name: str = "rows.jsonl"):
    """Overrides that read these rows."""
    return pairs(name, "".join(json.dumps(row) + "\n" for row in rows))


def tools(value: object):
    """Overrides that read a conversation with these tools."""

    def make(inputs: Inputs) -> list[str]:
        lines = [
            {"messages": conversation(i), "tools": tool} for i, tool in enumerate([value, None])
        ]
        file = inputs.write("tools.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        model = write_chat_model(inputs.folder / "model", "ChatML")
        named = [f"model.path={model}", "data=files", f"data.path={file}"]
        return [*named, "data.messages=messages", "data.tools=tools", *PAIRS]

    return make


def chat(*messages: object, family: str = "ChatML", eos: str | None = None, more: int = 0):
    """Overrides that read a conversation, with a model of a family whose end of turn is `eos`."""

    def make(inputs: Inputs) -> list[str]:
        lines = [{"messages": conversation(i)} for i in range(more)] + [{"messages": messages}]
        file = inputs.write("chat.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        model = write_chat_model(inputs.folder / "model", family, eos=eos)
        named = [f"model.path={model}", "data=files", f"data.path={file}", "documents.length=400"]
        return [*named, "data.messages=messages", *PAIRS]

    return make


def without_template(inputs: Inputs) -> list[str]:
    return [*chat(*conversation(0), more=2)(inputs), f"model.path={inputs.model}"]


def parquet(**columns):
    """Overrides that read a Parquet file of these columns."""
    stream = BytesIO()
    pq.write_table(pa.table(columns), stream)
    return pairs("rows.parquet", stream.getvalue())


def of(source: str, name: str, content: str | bytes):
    """Overrides that read a file of this content with another source."""

    def make(inputs: Inputs) -> list[str]:
        file = inputs.write(name, content)
        return [f"data={source}", f"data.path={file}", "~data.held_out", *PAIRS]

    return make


def pipe(inputs: Inputs) -> list[str]:
    os.mkfifo(inputs.folder / "pipe.jsonl")
    return ["data=files", f"data.path={inputs.folder}/pipe.jsonl", "data.completion=a"]


def gettext(*more: str, content: bytes = b""):
    def make(inputs: Inputs) -> list[str]:
        inputs.write("de/LC_MESSAGES/a.mo", content)
        return ["data=gettext", f"data.path={inputs.folder}", *PAIRS, *more]

    return make


CASES = [
    Case("no file", pairs("x.jsonl", "", "data.path=gone.jsonl"), "data.path = gone.jsonl: no such file"),
    Case("a folder without Python", lambda it: [f"data.path={it.folder}"], "no .py file with text in it"),
    Case("no such column", rows({"q": "q", "answer": "a"}), "data.completion = a: rows.jsonl, row 1 has no such column; there are: q, answer"),
    Case("an empty file", pairs("empty.jsonl", ""), "empty.jsonl: the file is empty"),
    Case("a line cut off", pairs("cut.jsonl", '{"q": "", "a": ""}\n{"q":'), "line 2 is not JSON"),
    Case("a long number in a damaged line", pairs("x.jsonl", '{"n": ' + "1" * 5000 + ","), "line 1 is not JSON (Expecting property name"),
    Case("a line of another format", pairs("x.jsonl", "\x1b[2J" * 9999), "line 1 is not JSON"),
    Case("a pipe", pipe, "pipe.jsonl: it is a folder, a pipe or a device, not a regular file"),
    Case("UTF-16", pairs("x.csv", "q,a\nq,a\n".encode("utf-16")), "x.csv: is not UTF-8 (byte 0xff)"),
    Case("no gzip", pairs("x.csv.gz", "q,a\n"), "x.csv.gz: cannot be read: Not a gzipped file"),
    Case("gzip cut off", pairs("x.json.gz", b"\x1f\x8b\x08\0"), "x.json.gz: cannot be read: Compressed"),
    Case("a chat for a completion", rows(ROW | {"a": CHAT}), "data.completion = a: rows.jsonl, row 1 has the messages of a conversation there, and data.prompt has none; set data.messages"),
    Case("a chat of another kind", rows(ROW | {"a": [{"from": "human", "value": ""}]}), "row 1, message 1 has no 'role'; there are: from, value; rename"),
    Case("a chat for a prompt", rows(ROW | {"q": CHAT}), "data.prompt = q: rows.jsonl, row 1 has the messages of a conversation there, and data.completion has none"),
    Case("no chat", chat("Hello"), "data.messages = messages: chat.jsonl, row 1, message 1 is 'Hello'; a message has role and content"),
    Case("chat: no message", chat(more=1), "row 2 has [] there; a conversation is a list of messages"),
    Case("chat: a call without a name", chat({"role": "assistant", "tool_calls": [{}]}), "row 1, message 1, call 1 is {}; a call is an object with the name of a function and its arguments"),
    Case("chat: calls that are no list", chat({"role": "assistant", "tool_calls": {"name": "f"}}), "row 1, message 1 has {'name': 'f'} for its tool_calls; they are a list"),
    Case("chat: arguments that are no object", chat({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}), "message 1, call 1: its arguments are [1]; give an object"),
    Case("chat: arguments that are no JSON", chat({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "x=1"}]}), "message 1, call 1: its arguments are no JSON (Expecting value"),
    Case("chat: a user who calls a tool", chat({**said("user", "u"), "tool_calls": [{"name": "f"}]}), "message 1 has tool_calls, which only the assistant has; remove it"),
    Case("chat: an older form of calls", chat({"role": "assistant", "function_call": {"name": "f"}}), "message 1 has 'function_call', an older form; write tool_calls"),
    Case("chat: an older form of answers", chat(said("function", "5")), "message 1 has 'function', an older form; write the role tool"),
    Case("chat: a call that the template loses", chat(said("user", "u"), {"role": "assistant", "tool_calls": [{"name": "f9"}]}, more=1), "data: chat.jsonl:2: the chat template does not write the call of 'f9' in message 2; give a model"),
    Case("chat: an unknown key", chat({**said("user", "u"), "name": "A"}), "row 1, message 1 has 'name', and only role, content and reasoning_content are read; remove it"),
    Case("chat: an unknown role", chat(said("bot", "b")), "message 1 has the role 'bot'; roles are system, user, assistant"),
    Case("chat: a picture", chat(said("user", [{"type": "text", "text": "See"}, {"type": "image"}])), "row 1, message 1, part 2 of its content is {'type': 'image'}; only text is read"),
    Case("chat: a part that is a text", chat(said("user", ["u"])), "row 1, message 1, part 1 of its content is 'u'; only text is read"),
    Case("chat: a part without its text", chat(said("user", [{"type": "text"}])), "message 1, part 1 of its content is {'type': 'text'}; only text is read"),
    Case("chat: no parts", chat(said("user", [])), "row 1, message 1 has [] for its content; a text is needed"),
    Case("chat: half a surrogate pair in a part", chat(said("user", [{"type": "text", "text": "x\ud83d"}])), "row 1, message 1 has half a surrogate pair"),
    Case("chat: reasoning that is no text", chat(said("user", "u"), {**said("assistant", "a"), "reasoning_content": ["r"]}), "row 1, message 2 has ['r'] for its reasoning_content; a text is needed"),
    Case("chat: a user who reasons", chat({**said("user", "u"), "reasoning_content": "r"}), "row 1, message 1 has reasoning_content, which only the assistant has; remove it"),
    Case("chat: reasoning that the template loses", chat(said("user", "u"), {**said("assistant", "a"), "reasoning_content": "r9"}, more=1), "data: chat.jsonl:2: the chat template does not write the reasoning_content of message 2"),
    Case("chat: a tool without a name", tools([{"type": "function"}]), "data.tools = tools: tools.jsonl, row 1, tool 1 is {'type': 'function'}; a tool is an object with the name of a function"),
    Case("chat: tools in another form", tools({"name": "f"}), "row 1 has {'name': 'f'} there; tools are a list of functions"),
    Case("chat: tools that are no JSON", tools("[f()]"), "data.tools = tools: tools.jsonl, row 1 is no JSON (Expecting value"),
    Case("chat: half a surrogate pair in a tool", tools([{"name": "x\ud83d"}]), "row 1 has half a surrogate pair"),
    Case("chat: half a surrogate pair in a call", chat(said("user", "u"), said("assistant", "a") | {"tool_calls": [{"name": "f", "arguments": {"x": "\ud83d"}}]}), "row 1, message 2 has half a surrogate pair"),
    Case("chat: tools nested too deeply", tools("[" * 500 + "]" * 500), "row 1 is no JSON (it is nested more than 100 levels deep)"),
    Case("chat: tools that the template loses", tools([{"name": "weather"}]), ": the chat template does not describe the tool 'weather'"),
    Case("tools of a text", pairs("rows.jsonl", json.dumps(ROW | {"t": [{"name": "f"}]}) + "\n", "data.tools=t"), "data.tools = t: rows.jsonl, row 1 has tools, and the row has no conversation in which a template could describe them; set data.tools=null"),
    Case("chat: half a surrogate pair", chat(said("user", "x\ud83d")), "row 1, message 1 has half a surrogate pair"),
    Case("chat: a role twice", pairs("x.jsonl", '{"m": [{"role": "a", "role": "b"}]}', "~data.prompt", "~data.completion", "data.messages=m"), "message 1 has role more than once"),
    Case("chat: no answer", chat(said("user", "u"), more=3), "row 4 has no message of the assistant"),
    Case("chat: an empty answer", chat(said("user", "u"), said("assistant", " \n")), "row 1, message 2: the assistant's turn is empty; leave the row out"),
    Case("chat: no question", chat(said("assistant", "a"), more=1), "data: chat.jsonl:2: begins with a turn of the assistant"),
    Case("chat: no template", without_template, "model.path: its tokenizer has no chat template, which conversations need"),
    Case("chat: a system message that the template refuses", chat(*conversation(9, system="s"), family="Gemma", more=1), "data: chat.jsonl:2: the chat template refuses the conversation (System role not supported)"),
    Case("chat: another end of turns", chat(*conversation(9), more=1, family="Gemma", eos="<eos>"), "with the tokenizer's end-of-sequence token <eos>, with which rollouts end; it ends turns with <end_of_turn>: set model.eos_token='<end_of_turn>'"),
    Case("chat: both forms", lambda it: [*chat(*conversation(0))(it), "data.prompt=q"], "messages = messages: is the column of whole conversations"),
    Case("an end of sequence that is no token", lambda it: ["model.eos_token=<|no|>"], "model.eos_token = <|no|>: the tokenizer of"),
    Case("a long value", rows(ROW, ROW | {"a": ["x" * 10**5] * 99}), "row 2 has ['xxxxxxx"),
    Case("a deep value", rows(ROW | {"a": json.loads("[" * 200 + "]" * 200)}), "row 1 has [[["),
    Case("a number", rows(ROW, ROW | {"a": 5}), "data.completion = a: rows.jsonl, row 2 has 5 there"),
    Case("half a surrogate pair", rows(ROW, ROW | {"q": "x\ud83d"}), r"has half a surrogate pair there, which is not a character: 'x\ud83d'; repair"),
    Case("a key twice", pairs("x.jsonl", '{"q": "", "a": "b", "\\u0061": "c"}'), "data.completion = a: x.jsonl, row 1 has this key more than once"),
    Case("columns with escapes", rows(ESCAPES), r"no such column; there are: '\x1b[31m0\n'"),
    Case("CSV without the column", pairs("x.csv", "q; a\nx; y\n"), "data.prompt = q: x.csv has no such column; there are: q; a"),
    Case("CSV with a column twice", pairs("x.csv", "q,a,a\n1,2,3\n"), "data.completion = a: x.csv has 2 columns of this name"),
    Case("CSV with a comma in a text", pairs("x.csv", "q,a\n1,2\n1,2,3\n"), "x.csv: line 3 has 3 fields, and the first 2"),
    Case("CSV with an open quote", pairs("x.csv", 'q,a\n1,"2\n1,2\n'), "x.csv: line 2: unexpected end of data"),
    Case("CSV of its header", pairs("x.csv", "q,a\n"), "x.csv: the file has no rows"),
    Case("Parquet with numbers", parquet(q=["q"], a=[0.5]), "data.completion = a: rows.parquet, row 1 has 0.5 there"),
    Case("Parquet without the column", parquet(q=["q"], d=[{"a": "x"}]), "data.completion = a: rows.parquet has no such column; there are: q, d"),
    Case("Parquet in another encoding", parquet(q=["q"], a=pa.array([b"\xe9"]).view(pa.string())), "rows.parquet: is not UTF-8 (byte 0xe9)"),
    Case("Parquet cut off", pairs("x.parquet", b"PAR1" + bytes(99)), "x.parquet: cannot be read: Parquet magic"),
    Case("gsm8k: half a surrogate pair", of("gsm8k", "x.jsonl", '{"question": "\\udead", "answer": "#### 5"}'), r"x.jsonl: line 1, question: has half a surrogate pair there"),
    Case("mbpp: a number among the tests", of("mbpp", "x.jsonl", json.dumps(TASK | {"test_list": ["a", 5]})), "x.jsonl: line 1, test_list: has 5 there"),
    Case("mbpp: a truth for a number", of("mbpp", "x.jsonl", json.dumps(TASK | {"task_id": True})), "x.jsonl: line 1, task_id: has True there; this is of type int"),
    Case("humaneval: no test", of("humaneval", "x.jsonl", '{"task_id": "1"}'), "x.jsonl: line 1 has no 'prompt'; there are: task_id"),
    Case("gettext: a damaged catalogue", gettext(content=b"\xde\x12\x04\x95" + bytes(10)), "de/LC_MESSAGES/a.mo: cannot be read"),
    Case("gettext: a pattern for a language", gettext("data.languages={'*': German}"), "data.languages = {'*': 'German'}: '*' is not a folder of a locale"),
    Case("gettext: a package without a place", gettext("data.package=__main__", "data.path=null"), "data.package = __main__: no package of this name is installed"),
    Case("a package within a package", lambda it: [f"data.path={it.texts}", "data.out_of_distribution=[no.such]"], "data.out_of_distribution: no.such: neither a package under"),
]  # fmt: skip
