"""What a data source reads: texts to train on, and texts held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `is_target` says whether it is a turn to train on: a turn of
    the assistant that is not only context. `reasoning` is what a template calls
    `reasoning_content`; empty if there is none. `tools` are the template's fields for calls of
    tools or for the answer of one, as the JSON text of an object; empty if there are none."""

    role: str
    content: str
    is_target: bool = False
    reasoning: str = ""
    tools: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One text of a data source: `prompt` is empty for raw text. `name` is unique in the source.

    `check` is what a verifiable reward compares a rollout with (unit tests, an answer), if any.
    `cluster` names what the text is a part of, such as a file, which is held out as a whole.
    `stop` are texts that end a completion in the benchmark that the text is from, if it has any.
    `messages` is a conversation, to which the tokenizer's chat template is applied (see
    `of_messages`); empty for other texts. `tools` are the functions that the template describes, as
    the JSON text of a list.
    """

    name: str
    completion: str
    prompt: str = ""
    check: str = ""
    cluster: str = ""
    messages: tuple[Message, ...] = ()
    tools: str = ""
    stop: tuple[str, ...] = ()

    @classmethod
    def of_messages(
        cls,
        name: str,
        messages: Sequence[Message],
        *,
        check: str = "",
        cluster: str = "",
        tools: str = "",
    ) -> Example:
        """Returns the example of a conversation.

        Its prompt is the first message of the user, and its completion is the whole conversation.
        They are not tokenized: they say which conversations are copies, and which are held out
        together.
        """
        users = (message for message in messages if message.role == "user")
        return cls(
            name,
            "\n".join(f"{it.role}: {it.reasoning}{it.content}{it.tools}" for it in messages),
            next(users, messages[0]).content,
            check,
            cluster,
            tuple(messages),
            tools,
        )


@dataclass(frozen=True, slots=True)
class Splits:
    """The examples to train on and those held out; no file or row is in both.

    `out_of_distribution` are held-out examples of a kind that train does not have (another package,
    another type of task); empty if the source does not distinguish them.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    out_of_distribution: Sequence[Example] = ()
