# ruff: noqa: E501 — a case of a table is one line
"""Conversations: tokens, anchors and masks are those of `apply_chat_template`, token by token."""

import copy
import json
from dataclasses import replace

import datasets
import pytest
import torch

from ebft.data.conversations import turns_apart
from ebft.data.corpus import digest_documents
from ebft.data.documents import DocumentOptions, tokenize
from ebft.data.files import Files
from ebft.data.hub import Hub
from ebft.errors import UserError
from ebft.parts.splits import Example, Message
from ebft.plans.completion import Completion
from ebft.rollout.contexts import make_rollouts
from ebft.rollout.records import Document
from ebft.training.objective import cross_entropy_mask
from ebft.verifiers.attempts import attempts_of
from tests.chat import FAMILIES, PARTS, TOOLS, chat_tokenizer, conversation, said

PLAN = Completion(rollout_length=12)
LONG = Completion(rollout_length=64)
"""Longer than each turn of the tests."""
PREFIXED = [family for family in FAMILIES if family != "reasoning"]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Where texts are kept, instead of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read(path, **columns):
    """Every example of a file, in order."""
    splits = Files(path=path, **columns)()
    found = [*splits.train, *splits.held_out]
    return sorted(found, key=lambda example: int(example.name.rpartition(":")[2]))


def documents_of(examples, tokenizer, *, length=400, plan=PLAN, on_demand=False):
    options = DocumentOptions(length=length, on_demand=on_demand)
    return tokenize(examples, tokenizer, options, plan, split="train").documents


def example(messages, name="rows:1", trained=None):
    """The example of a conversation, of which the last `trained` assistant's turns are targets."""
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    kept = turns if trained is None else turns[-trained:]
    return Example.of_messages(
        name, [Message(**message, is_target=i in kept) for i, message in enumerate(messages)]
    )


def template(tokenizer, messages, **more):
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **more)


def check_document(document, tokenizer, messages, kept, **more):
    """Compares a document with the template of the whole conversation; `kept` are the places of
    the messages that are trained on, and `more` are passed to the template."""
    whole = template(tokenizer, messages, return_assistant_tokens_mask=True, **more)
    assert document.tokens.tolist() == whole["input_ids"]
    contexts = PLAN([document])
    asked = [
        template(tokenizer, messages[:place], add_generation_prompt=True, **more)["input_ids"]
        for place in kept
    ]
    assert contexts.anchor.tolist() == [len(context) for context in asked]
    mask = cross_entropy_mask(contexts, "completion")[0].tolist()
    expected, spans = [0] * len(mask), []
    for context in asked:
        start = len(context)
        assert whole["input_ids"][:start] == context
        assert whole["assistant_masks"][start - 1] == 0
        end = next(
            (i for i in range(start, len(mask)) if not whole["assistant_masks"][i]), len(mask)
        )
        assert whole["input_ids"][end - 1] == tokenizer.eos_token_id
        expected[start:end] = [1] * (end - start)
        spans.append((start, end))
    assert mask == [bool(it) for it in expected]
    if len(kept) == sum(message["role"] == "assistant" for message in messages):
        assert expected == whole["assistant_masks"]
    for plan in (PLAN, LONG):
        c = plan([document])
        for p, (start, end) in enumerate(spans):
            reference = c.reference[p][c.reference_mask[p]].tolist()
            assert reference == whole["input_ids"][start : min(end, start + plan.rollout_length)]
    assert cross_entropy_mask(contexts, "all")[0].sum() == len(mask) - max(document.begins, 1)


@pytest.mark.parametrize("family", PREFIXED)
@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_messages_are_the_template_of_the_whole(tmp_path, family, turns, system):
    if family == "Gemma" and system is not None:
        pytest.skip("its template refuses a system message, below")
    tokenizer = chat_tokenizer(family)
    talks = [conversation(i, turns, system) for i in range(5)]
    path = write(tmp_path / "chat.jsonl", [{"messages": talk} for talk in talks])
    found = documents_of(read(path, messages="messages"), tokenizer)
    assert [document.name for document in found] == [f"chat.jsonl:{i}" for i in range(1, 6)]
    for document, talk in zip(found, talks, strict=True):
        kept = [i for i, message in enumerate(talk) if message["role"] == "assistant"]
        check_document(document, tokenizer, talk, kept)
        spelled = FAMILIES[family].bos is not None
        assert document.begins == spelled
        bos = tokenizer.bos_token_id
        assert document.tokens.tolist().count(bos) == spelled


@pytest.mark.parametrize("family", PREFIXED)
def test_a_prompt_and_a_completion_of_messages(tmp_path, family):
    """Turns in the prompt are context only."""
    tokenizer = chat_tokenizer(family)
    talks = [conversation(i, 3) for i in range(4)]
    rows = [{"q": talk[:-1], "a": talk[-1:]} for talk in talks]
    path = write(tmp_path / "pairs.jsonl", rows)
    found = documents_of(read(path, prompt="q", completion="a"), tokenizer)
    for document, talk in zip(found, talks, strict=True):
        check_document(document, tokenizer, talk, [5])


def test_a_hub_data_set_with_keys_that_are_null(tmp_path):
    rows = []
    for i in range(4):
        plain, *others = conversation(i, 2)
        rows.append({"messages": [{**plain, "tool_calls": None}, *others], "id": i})
    write(tmp_path / "data.jsonl", rows)
    splits = Hub(dataset=str(tmp_path), messages="messages")()
    tokenizer = chat_tokenizer("ChatML")
    found = documents_of([*splits.train, *splits.held_out], tokenizer)
    assert len(found) == 4
    for document in found:
        talk = conversation(int(document.name.rpartition(":")[2]) - 1, 2)
        check_document(document, tokenizer, talk, [1, 3])


def test_turns_that_a_template_writes_in_another_way_later_are_documents_of_their_own(tmp_path):
    tokenizer = chat_tokenizer("reasoning")
    talks = [conversation(i, 2, think=True) for i in range(3)]
    path = write(tmp_path / "chat.jsonl", [{"messages": talk} for talk in talks])
    found = documents_of(read(path, messages="messages"), tokenizer)
    names = [f"chat.jsonl:{i}#{turn}" for i in (1, 2, 3) for turn in (1, 2)]
    assert [document.name for document in found] == names
    for document in found:
        row, turn = (int(it) for it in document.name.rpartition(":")[2].split("#"))
        check_document(document, tokenizer, talks[row - 1][: 2 * turn], [2 * turn - 1])
        assert document.cluster == f"chat.jsonl:{row}"
    text = tokenizer.decode(found[1].tokens.tolist())
    assert "In the mind 1" in text
    assert "In the mind 0" not in text
    (single,) = documents_of([example(conversation(0, 1, think=True))], tokenizer)
    assert (single.name, single.cluster) == ("rows:1", "")


def test_on_demand_each_turn_is_a_document():
    tokenizer = chat_tokenizer("Llama 3")
    talk = conversation(1, 3)
    lazy = documents_of([example(talk), example(conversation(2, 1), "rows:2")], tokenizer,
                        on_demand=True)  # fmt: skip
    assert [document.name for document in lazy] == ["rows:1#1", "rows:1#2", "rows:1#3", "rows:2#1"]
    for turn, document in enumerate(lazy[:3], 1):
        check_document(document, tokenizer, talk[: 2 * turn], [2 * turn - 1])


def test_a_turn_that_begins_within_a_token_keeps_the_tokens_of_its_context():
    """After ChatML's `assistant\\n`, an answer that begins with a line end makes one token."""
    tokenizer = chat_tokenizer("ChatML")
    messages = [said("user", "Go"), said("assistant", "\nin the end")]
    (document,) = documents_of([example(messages)], tokenizer)
    asked = template(tokenizer, messages[:1], add_generation_prompt=True)["input_ids"]
    start, end = document.turns[0]
    tokens = document.tokens.tolist()
    assert tokens[:start] == asked
    assert tokenizer.decode(tokens) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(tokens[start:end]) == "\nin the end<|im_end|>"
    assert template(tokenizer, messages)["input_ids"] != tokens


def test_an_answer_that_spells_the_end_of_a_turn_ends_where_the_template_does():
    tokenizer = chat_tokenizer("ChatML")
    messages = [said("user", "Go"), said("assistant", "It is <|im_end|>, so"), said("user", "Ok")]
    (document,) = documents_of([example(messages)], tokenizer)
    ((start, end),) = document.turns
    assert tokenizer.decode(document.tokens[start:end]) == "It is <|im_end|>, so<|im_end|>"


def test_the_first_context_and_the_end_are_those_of_turns_not_of_the_document():
    tokenizer = chat_tokenizer("ChatML")
    messages = [*conversation(0, 2), said("user", "Bye")]
    (document,) = documents_of([example(messages)], tokenizer)
    assert document.prompt_length == document.turns[0][0]
    contexts = PLAN([document])
    tokens = torch.full((2, 1, 12), tokenizer.eos_token_id)
    rollouts = make_rollouts(
        contexts, tokens, torch.zeros(2, 1, 12), tokenizer=tokenizer, temperature=1.0
    )
    attempts = attempts_of(rollouts, tokenizer)
    assert [it.reference for it in attempts] == [messages[1]["content"], messages[3]["content"]]
    assert attempts[1].context.endswith("turn?<|im_end|>\n<|im_start|>assistant\n")


def test_the_digest_of_other_documents_is_that_of_earlier_versions():
    plain = Document("a", torch.arange(4), 2)
    assert digest_documents([plain]) == "1 documents, f85565c5d7705dd0f0c6bd22241c8d28"
    turns = [replace(plain, turns=((2, 3),)), replace(plain, turns=((2, 4),))]
    assert len({digest_documents([it]) for it in [plain, *turns]}) == 3


def test_what_is_held_out_together(tmp_path):
    """Conversations with the same first message of the user; copies are found."""
    talks = [conversation(i, 1, system=f"{j}") for i in range(6) for j in range(3)]
    path = write(tmp_path / "chat.jsonl", [{"messages": talk} for talk in [*talks, talks[0]]])
    splits = Files(path=path, messages="messages", held_out=0.3)()
    first = [{e.prompt for e in part} for part in (splits.train, splits.held_out)]
    assert not first[0] & first[1]
    assert [len(it) for it in first] == [4, 2]
    assert len(splits.train) + len(splits.held_out) == 18


def test_turns_apart_have_one_target_each():
    apart = turns_apart(example(conversation(0, 3), trained=2))
    assert [it.name for it in apart] == ["rows:1#1", "rows:1#2"]
    assert [[i for i, m in enumerate(it.messages) if m.is_target] for it in apart] == [[3], [5]]
    assert [len(it.messages) for it in apart] == [4, 6]


@pytest.mark.parametrize(
    ("family", "messages", "says"),
    [
        ("Gemma", conversation(0, 1, "Be kind."), r"rows:1: .*System role not supported\); change its"),
        ("Mistral", conversation(0, 1)[1:], "rows:1: begins with a turn of the assistant"),
        ("Mistral", [said("user", "a"), *conversation(0, 1)], "must alternate user and assistant"),
    ],
)  # fmt: skip
def test_what_a_template_refuses(family, messages, says):
    with pytest.raises(UserError, match=says):
        documents_of([example(messages)], chat_tokenizer(family))


@pytest.mark.parametrize(
    ("family", "eos", "says"),
    [
        ("ChatML", "<|endoftext|>", r"message 2 with .*<\|endoftext\|>,.*model.eos_token='<\|im_end\|>'"),
        ("Gemma", "<eos>", "set model.eos_token='<end_of_turn>'"),
    ],
)  # fmt: skip
def test_another_end_of_turn_than_the_end_of_sequence(family, eos, says):
    tokenizer = chat_tokenizer(family, eos=eos)
    with pytest.raises(UserError, match=says):
        documents_of([example(conversation(0, 1))], tokenizer)


def test_an_end_of_sequence_in_the_middle_of_answers_does_not_end_them():
    tokenizer = chat_tokenizer("ChatML", eos="t")  # "It is …"
    with pytest.raises(UserError, match=r"it ends turns with <\|im_end\|>: set model\.eos_token"):
        documents_of([example(conversation(0, 1))], tokenizer)


def test_a_template_that_does_not_end_turns():
    tokenizer = chat_tokenizer("ChatML")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"
    with pytest.raises(UserError, match="give a model whose template does"):
        documents_of([example(conversation(0, 1))], tokenizer)


def test_a_generation_prompt_that_no_answer_begins_with():
    tokenizer = chat_tokenizer("ChatML")
    tokenizer.chat_template += "{% if add_generation_prompt %}{{ '<think>' }}{% endif %}"
    with pytest.raises(UserError, match="message 2 does not begin with its generation prompt"):
        documents_of([example(conversation(0, 1))], tokenizer)


def test_no_template():
    tokenizer = chat_tokenizer("ChatML")
    tokenizer.chat_template = None
    with pytest.raises(UserError, match=r"model\.path: its tokenizer has no chat template"):
        documents_of([example(conversation(0, 1))], tokenizer)


def with_template(text):
    tokenizer = chat_tokenizer("reasoning")
    tokenizer.chat_template = text
    return tokenizer


def reasoned(i, turns, system=None):
    """A conversation whose answers have their reasoning in a field of its own."""
    talk = conversation(i, turns, system)
    return [
        message
        | ({"reasoning_content": f"In the mind {n}."} if message["role"] == "assistant" else {})
        for n, message in enumerate(talk)
    ]


def parts(text):
    """A text as a list of parts, divided within words."""
    return [{"type": "text", "text": text[at : at + 7]} for at in range(0, len(text), 7)]


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}
TIME = {"name": "time", "description": "The time — now.", "parameters": {}}


@pytest.mark.parametrize("family", PREFIXED)
def test_content_in_parts_is_their_text(tmp_path, family):
    tokenizer = chat_tokenizer(family)
    talks = [conversation(i, 2) for i in range(3)]
    rows = [{"messages": [said(it["role"], parts(it["content"])) for it in talk]} for talk in talks]
    path = write(tmp_path / "chat.jsonl", rows)
    for document, talk in zip(
        documents_of(read(path, messages="messages"), tokenizer), talks, strict=True
    ):
        check_document(document, tokenizer, talk, [1, 3])


def test_a_template_that_reads_parts_makes_the_same_tokens_of_them(tmp_path):
    tokenizer = with_template(PARTS)
    talk = [said(it["role"], parts(it["content"])) for it in conversation(1, 2)]
    path = write(tmp_path / "chat.jsonl", [{"messages": talk}, {"messages": conversation(2, 1)}])
    document, _ = documents_of(read(path, messages="messages"), tokenizer)
    check_document(document, tokenizer, talk, [1, 3])


@pytest.mark.parametrize("system", [None, "Be kind."])
def test_reasoning_that_earlier_turns_lose(tmp_path, system):
    """Each turn is a document of its own, with its own reasoning and none of the turns before."""
    tokenizer = with_template(TOOLS)
    talks = [reasoned(i, 2, system) for i in range(2)]
    path = write(tmp_path / "chat.jsonl", [{"messages": talk} for talk in talks])
    found = documents_of(read(path, messages="messages"), tokenizer)
    assert [document.name for document in found] == [
        f"chat.jsonl:{row}#{turn}" for row in (1, 2) for turn in (1, 2)
    ]
    begin = 0 if system is None else 1
    for document in found:
        row, turn = (int(it) for it in document.name.rpartition(":")[2].split("#"))
        end = begin + 2 * turn
        check_document(document, tokenizer, talks[row - 1][:end], [end - 1])
        ((first, last),) = document.turns
        said_now = tokenizer.decode(document.tokens[first:last].tolist())
        assert said_now.startswith(f"<think>\nIn the mind {end - 1}.\n</think>\n\nIt is")
        assert "In the mind" not in tokenizer.decode(document.tokens[:first].tolist())


def test_reasoning_of_the_last_turn_alone_leaves_one_document():
    tokenizer = with_template(TOOLS)
    talk = [*conversation(0, 1), *reasoned(1, 1)]
    messages = [
        Message(
            it["role"], it["content"], it["role"] == "assistant", it.get("reasoning_content", "")
        )
        for it in talk
    ]
    (document,) = documents_of([Example.of_messages("rows:1", messages)], tokenizer)
    check_document(document, tokenizer, talk, [1, 3])


@pytest.mark.parametrize("system", [None, "Be kind."])
def test_tools_that_the_template_describes(tmp_path, system):
    tokenizer = with_template(TOOLS)
    talks = [conversation(i, 2, system) for i in range(4)]
    tools = [[WEATHER, TIME], json.dumps([TIME]), None, [WEATHER | {"strict": None}]]
    rows = [{"m": talk, "t": tool} for talk, tool in zip(talks, tools, strict=True)]
    path = write(tmp_path / "chat.jsonl", rows)
    found = documents_of(read(path, messages="m", tools="t"), tokenizer, length=800)
    begin = 0 if system is None else 1
    for document, talk, tool in zip(
        found, talks, [[WEATHER, TIME], [TIME], None, [WEATHER]], strict=True
    ):
        check_document(document, tokenizer, talk, [begin + 1, begin + 3], tools=tool)
    assert "weather" in tokenizer.decode(found[0].tokens.tolist())


def test_tools_of_prompts_with_completions(tmp_path):
    tokenizer = with_template(TOOLS)
    talk = conversation(0, 2)
    rows = [
        {"q": talk[:-1], "a": talk[-1:], "tools": [TIME]},
        {"q": talk[:1], "a": talk[1:2], "tools": None},
    ]
    path = write(tmp_path / "pairs.jsonl", rows)
    examples = read(path, prompt="q", completion="a", tools="tools")
    first, _ = documents_of(examples, tokenizer, length=800)
    check_document(first, tokenizer, talk, [3], tools=[TIME])


def called(number):
    """A conversation in which a tool is called, with the arguments as an object."""
    call = {"name": "weather", "arguments": {"town": f"{number}ville", "days": 2}}
    return [
        said("user", f"Is it sunny in {number}ville?"),
        said("assistant", "I look.") | {"tool_calls": [{"type": "function", "function": call}]},
        said("tool", '{"sun": true}') | {"name": "weather"},
        said("assistant", "Yes."),
    ]


def test_calls_of_tools_and_their_answers(tmp_path):
    """The assistant's calls are trained on, and the answers are context."""
    tokenizer = with_template(TOOLS)
    talks = [called(i) for i in range(3)]
    as_json = copy.deepcopy(talks)
    for talk in as_json[1:]:
        call = talk[1]["tool_calls"][0]
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
        talk[1]["tool_calls"] = [{"id": "c1", "index": 0, **call}]
        talk[2]["tool_call_id"] = "c1"
    as_json[2][1]["content"] = None
    talks[2][1]["content"] = ""
    rows = [{"messages": talk, "tools": [WEATHER]} for talk in as_json]
    path = write(tmp_path / "calls.jsonl", rows)
    found = documents_of(read(path, messages="messages", tools="tools"), tokenizer, length=800)
    for document, talk in zip(found, talks, strict=True):
        check_document(document, tokenizer, talk, [1, 3], tools=[WEATHER])
        first, last = document.turns[0]
        assert '"town": "' in tokenizer.decode(document.tokens[first:last].tolist())


def test_conversations_that_differ_in_a_call_alone_are_no_copies():
    call = '{"tool_calls": [{"function": {"name": "f", "arguments": {"x": %d}}}]}'
    one, other = (
        Example.of_messages(
            "r", [Message("user", "u"), Message("assistant", "", True, tools=call % x)]
        )
        for x in (1, 2)
    )
    assert one.completion != other.completion


def test_a_column_tools_is_read_where_a_row_has_it(tmp_path):
    rows = [{"messages": conversation(i, 1)} for i in range(3)]
    rows[2]["tools"] = [TIME]
    path = write(tmp_path / "some.jsonl", rows)
    for _ in range(2):  # from the file, and from the cache
        assert [bool(it.tools) for it in read(path, messages="messages")] == [False, False, True]
    assert not any(it.tools for it in read(path, messages="messages", tools=None))
    with pytest.raises(UserError, match=r"t: some\.jsonl has no such column; there are: messages"):
        list(read(path, messages="messages", tools="t"))


@pytest.mark.parametrize("has_tools", [True, False])
def test_a_column_tools_of_a_parquet_file(tmp_path, has_tools):
    rows = [{"messages": conversation(i, 1)} for i in range(2)]
    if has_tools:
        rows = [row | {"tools": json.dumps([TIME])} for row in rows]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "chat.parquet")
    found = read(tmp_path / "chat.parquet", messages="messages")
    assert [bool(example.tools) for example in found] == [has_tools] * 2


def test_a_template_that_leaves_out_the_answers_of_tools(tmp_path):
    tokenizer = with_template(
        TOOLS.replace(
            "if message['role'] != 'system'", "if message['role'] in ('user', 'assistant')"
        )
    )
    path = write(tmp_path / "calls.jsonl", [{"messages": called(0)}, {"messages": called(1)}])
    with pytest.raises(
        UserError, match=r"calls\.jsonl:1, calls\.jsonl:2: .* answer of a tool in message 3; give"
    ):
        documents_of(read(path, messages="messages"), tokenizer, length=800)


def test_a_template_that_would_lose_them_without_a_word(tmp_path):
    tokenizer = chat_tokenizer("ChatML")
    path = write(tmp_path / "chat.jsonl", [{"messages": reasoned(i, 2)} for i in range(2)])
    with pytest.raises(
        UserError,
        match=r"chat\.jsonl:1, chat\.jsonl:2: .* reasoning_content of message 2; write it",
    ):
        documents_of(read(path, messages="messages"), tokenizer)
    rows = [{"messages": conversation(i, 1), "tools": [WEATHER]} for i in range(2)]
    path = write(tmp_path / "tools.jsonl", rows)
    with pytest.raises(
        UserError, match=r"tools\.jsonl:1, tools\.jsonl:2: .* the tool 'weather'; give a model"
    ):
        documents_of(read(path, messages="messages", tools="tools"), tokenizer)


def test_reasoning_of_a_turn_that_is_only_context_may_be_left_out():
    tokenizer = with_template(TOOLS)
    talk = reasoned(0, 2)
    messages = [
        Message(it["role"], it["content"], i == 3, it.get("reasoning_content", ""))
        for i, it in enumerate(talk)
    ]
    (document,) = documents_of([Example.of_messages("rows:1", messages)], tokenizer)
    check_document(document, tokenizer, talk, [3])
