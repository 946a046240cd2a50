"""Prompts to sample after: what rows mean, which are refused, and the contexts that they become."""

import json

import pytest

from ebft.data.prompts import examples_of, prompt_contexts, read_prompts
from ebft.errors import UserError
from ebft.models.tokenizer import text_of
from tests.chat import FAMILIES, TOOLS, chat_tokenizer, conversation, said

ASKED = [said("user", "Which one?")]


def contexts(rows, tokenizer, length=8):
    return prompt_contexts(examples_of(rows, "rows", "rows"), tokenizer, rollout_length=length)


def texts(found, tokenizer):
    """The text of each context, and of its reference."""
    return [
        (
            text_of(found.tokens[p, : int(found.anchor[p])].tolist(), tokenizer),
            text_of(found.reference[p][found.reference_mask[p]].tolist(), tokenizer),
        )
        for p in range(len(found))
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_is_asked_with_the_generation_prompt(family):
    tokenizer = chat_tokenizer(family)
    (found,) = texts(contexts([{"messages": ASKED}], tokenizer), tokenizer)
    asked = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    assert found == (asked, "")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_turn_of_the_assistant_is_the_reference(family):
    tokenizer, messages = chat_tokenizer(family), conversation(turns=2)
    rows = [
        {"messages": messages},
        {"prompt": messages[:-1], "completion": messages[-1:]},
        {"prompt": messages[:-1], "completion": messages[-1]["content"]},
    ]
    found = contexts(rows, tokenizer, length=100)
    asked = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    for context, reference in texts(found, tokenizer):
        assert context == asked
        assert messages[-1]["content"] in reference
        assert reference.endswith(tokenizer.eos_token)
    assert found.stop_at_eos


def test_a_prompt_has_its_completion_as_reference_and_no_other():
    tokenizer = chat_tokenizer("Mistral")
    rows = ["in the", {"prompt": "a", "completion": "bc"}, {"prompt": "a", "completion": None}]
    found = texts(contexts(rows, tokenizer), tokenizer)
    assert found == [("<s>in the", ""), ("<s>a", "bc</s>"), ("<s>a", "")]
    assert contexts(rows, tokenizer, length=2).reference_mask.tolist() == [
        [False, False], [True, True], [False, False],
    ]  # fmt: skip


def test_columns_that_are_null_are_not_there():
    tokenizer = chat_tokenizer("Mistral")
    both = {"messages": None, "prompt": "a", "completion": "bc", "tools": None, "check": None}
    asked = {"messages": ASKED, "prompt": None, "completion": None}
    found, alone = (
        texts(contexts(rows, tokenizer), tokenizer)
        for rows in ([both, asked], [{"prompt": "a", "completion": "bc"}, {"messages": ASKED}])
    )
    assert found == alone


def test_files_of_texts_and_of_objects_are_the_same_prompts(tmp_path):
    (tmp_path / "p.txt").write_text("in the\n\n  beginning\r\n")
    rows = [{"prompt": "in the"}, {"prompt": "  beginning"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "p.json").write_text(json.dumps(rows))
    found = [read_prompts(tmp_path / f"p.{kind}", "--prompts") for kind in ("txt", "jsonl", "json")]
    assert [[it.prompt for it in one] for one in found] == [["in the", "  beginning"]] * 3
    assert [it.name for it in found[1]] == ["p.jsonl:1", "p.jsonl:2"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (3, "row 1 is a int; a prompt is a text or a dict"),
        ({"question": "a"}, "row 1 has no 'prompt' or 'messages'; there are: question"),
        ({"prompt": 3}, "row 1: prompt has 3 there; a text is needed"),
        ({"prompt": "a", "completion": 3}, "row 1: completion has 3 there; a text is needed"),
        ({"messages": []}, "row 1: messages has [] there; a conversation is a list"),
        ({"messages": [{"role": "user"}]}, "row 1: messages, message 1 has no 'content'"),
        ({"messages": [*ASKED, said("assistant", " ")]}, "row 1: the last message is empty"),
        ({"prompt": ASKED, "completion": 3}, "row 1: completion has 3 there; a text is needed"),
        ({"messages": ASKED, "completion": "a"}, "row 1 has messages and a completion; leave one"),
        ({"messages": ASKED, "completion": []}, "row 1 has messages and a completion; leave one"),
        ({"prompt": "a", "completion": 0}, "row 1: completion has 0 there; a text is needed"),
        ({"prompt": "a", "check": False}, "row 1: check has False there; a text is needed"),
        ({"prompt": ASKED, "completion": ASKED}, "row 1: completion ends with a message of the us"),
        ({"prompt": None, "messages": None}, "row 1 has no 'prompt' or 'messages'; there are: "),
        ({"messages": ASKED, "tools": "[f()]"}, "row 1: tools is no JSON"),
        ({"messages": ASKED, "tools": [{"name": "\ud800"}]}, "row 1: tools has half a surrogate"),
        ({"prompt": "a", "tools": [{"name": "f"}]}, "row 1 has tools, and its prompt is no conv"),
    ],
)
def test_a_row_that_is_no_prompt_is_named(row, says):
    with pytest.raises(UserError) as raised:
        examples_of([row], "here", "rows")
    assert str(raised.value).startswith(f"here, {says}")
    assert "\n" not in str(raised.value)


def test_no_prompts_and_files_that_are_none_are_refused(tmp_path):
    other = tmp_path / "p.csv"
    other.write_text("a")
    empty = [tmp_path / f"{i}{end}" for i in "01" for end in (".txt", ".jsonl", ".json")]
    for path in empty:
        path.write_text("\n" * int(path.stem))
    for path, says in (
        *((path, "has no prompts$") for path in empty),
        (other, "ends in none of .jsonl, .json, .txt"),
        (tmp_path / "none.txt", "no such file"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(UserError, match=f"^--prompts = {path}: {says}"):
            read_prompts(path, "--prompts")


@pytest.mark.parametrize(
    ("text", "line"), [('{"prompt":\n{"prompt": "b"}\n', 1), ('{"prompt": "a"}\n{"prompt":', 2)]
)
def test_the_line_with_a_mistake_is_named(text, line, tmp_path):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(UserError, match=f": line {line} is not JSON .Expecting value"):
        read_prompts(tmp_path / "p.jsonl", "--prompts")


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(UserError, match="rows:1: the prompt is empty"):
        contexts([""], chat_tokenizer("ChatML"))
    with pytest.raises(UserError, match="rows:1: the chat template refuses the conversation"):
        contexts([{"messages": [said("system", "Be."), *ASKED]}], chat_tokenizer("Gemma"))


@pytest.mark.parametrize("row", [{"messages": ASKED}, {"prompt": ASKED, "completion": "Yes."}])
def test_the_template_describes_the_tools_of_a_prompt(row):
    tokenizer = chat_tokenizer("ChatML")
    tokenizer.chat_template = TOOLS
    tool = {"type": "function", "function": {"name": "clock", "parameters": {}}}
    ((asked, _),) = texts(contexts([row | {"tools": [tool]}], tokenizer), tokenizer)
    assert asked == tokenizer.apply_chat_template(
        ASKED, tools=[tool], tokenize=False, add_generation_prompt=True
    )
    assert "clock" in asked
    with pytest.raises(UserError, match="rows:1: the chat template does not describe the tool"):
        contexts([row | {"tools": [tool]}], chat_tokenizer("ChatML"))


def test_a_template_that_leaves_out_the_answer_of_a_tool_is_refused_for_a_prompt():
    tokenizer = chat_tokenizer("ChatML")
    messages = [*ASKED, said("tool", "noon")]
    tokenizer.chat_template = TOOLS
    ((asked, _),) = texts(contexts([{"messages": messages}], tokenizer), tokenizer)
    assert "noon" in asked
    tokenizer.chat_template = TOOLS.replace(
        "if message['role'] != 'system'", "if message['role'] in ('user', 'assistant')"
    )
    with pytest.raises(UserError, match=r"rows:1: .* the answer of a tool in message 2"):
        contexts([{"messages": messages}], tokenizer)
