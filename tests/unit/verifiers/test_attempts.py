"""Texts as a verifier sees them: all of a text, whatever special tokens it spells."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ebft.models.tokenizer import begins_with, encode, without_start
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Document, Rollouts
from ebft.verifiers.attempts import Attempt, attempts_of, shorten

PROMPT = "# ends </s> é\n"
G = 80
COMPLETION = "a = ' ' .join(x)  # '</s>' , not <s> it ' s\n"


def byte_tokenizer(start=()):
    """Bytes are tokens; `</s>` and `<s>` are special; decoding is told to clean up spaces."""
    special = {"<pad>": 0, "</s>": 1, "<s>": 2, "[sop]": 3}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = special | {letter: 4 + i for i, letter in enumerate(letters)}
    # No BPE, of which transformers never cleans up the spaces.
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split("", "isolated"),
        ]
    )
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(list(special))
    if start:
        model.post_processor = processors.TemplateProcessing(
            single=" ".join([*start, "$A"]),
            special_tokens=[(token, special[token]) for token in start],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="</s>", bos_token="<s>",
        clean_up_tokenization_spaces=True,
    )  # fmt: skip


def attempts(tokenizer, rollouts, *, prompt=PROMPT, completion=COMPLETION, anchor=None):
    """What a verifier sees of these tokens after a prompt, or after `anchor` tokens."""
    start, end = begins_with(tokenizer), tokenizer.eos_token_id
    before, after = encode(tokenizer, [prompt, completion])
    tokens = torch.tensor([*start, *before, *after, end])
    document = Document("doc", tokens, len(start) + len(before))
    anchor = document.prompt_length if anchor is None else anchor
    contexts = make_contexts(
        [document], [torch.tensor([anchor])], rollout_length=G, stop_at_eos=True
    )
    drawn = torch.zeros(1, len(rollouts), G, dtype=torch.long)
    for j, one in enumerate(rollouts):
        drawn[0, j, : len(one)] = torch.tensor(one)
    mask = torch.arange(G) < torch.tensor([len(one) for one in rollouts])[:, None]
    return attempts_of(
        Rollouts(contexts, drawn, torch.zeros(drawn.shape), mask[None], 1.0), tokenizer
    )


@pytest.mark.parametrize("start", [(), ("<s>",)])
def test_texts_are_those_of_the_data(start):
    tokenizer = byte_tokenizer(start)
    (ids,) = encode(tokenizer, [COMPLETION])
    assert 1 in ids, "it spells the end of sequence"
    for attempt in attempts(tokenizer, [ids, [*ids, 1]]):
        assert (attempt.context, attempt.rollout) == (PROMPT, COMPLETION)
        assert attempt.reference == COMPLETION


def test_one_end_of_sequence_is_left_out_and_only_at_the_end():
    first, second = attempts(byte_tokenizer(), [[1, 1], [2, 0, 1]])
    assert (first.rollout, second.rollout) == ("</s>", "<s><pad>")


def test_a_context_that_ends_within_a_character_leaves_all_of_it_to_the_rollout():
    tokenizer = byte_tokenizer()
    (right,) = encode(tokenizer, ["é = 1"])
    (attempt,) = attempts(tokenizer, [right[1:]], prompt="x ", completion="é = 1", anchor=3)
    assert (attempt.context, attempt.rollout, attempt.reference) == ("x ", "é = 1", "é = 1")


def test_a_prefix_of_several_tokens_is_no_text_of_the_document():
    assert without_start([2, 3, 9, 2, 3], [2, 3]) == [9, 2, 3]
    assert without_start([2, 9], [2, 3]) == [2, 9]


def test_the_end_of_what_goes_on_is_text():
    """Plans whose rollouts do not end there take no token from it."""
    tokenizer = byte_tokenizer()
    document = Document("doc", torch.tensor([9, 9, 1]))
    contexts = make_contexts([document], [torch.tensor([1])], rollout_length=2, stop_at_eos=False)
    drawn = torch.tensor([[[9, 1]]])
    made = Rollouts(contexts, drawn, torch.zeros(1, 1, 2), torch.ones(1, 1, 2).bool(), 1.0)
    (attempt,) = attempts_of(made, tokenizer)
    assert attempt.rollout == attempt.reference
    assert attempt.rollout.endswith("</s>")


@pytest.mark.parametrize(
    ("stop", "left"),
    [
        (None, "a\nb"),
        ((), "a\nb\n```\nc\ndef d"),
        (("\ndef ", "\n```", "x"), "a\nb"),
        (("\n",), "a"),
    ],
)
def test_a_rollout_ends_before_the_first_stop_text(stop, left):
    """By default those of its benchmark."""
    attempt = Attempt("", "a\nb\n```\nc\ndef d", "", "", "one", ("\ndef ", "\n```"))
    assert shorten(attempt, stop).rollout == left
