"""A completion's tokens are those of its own text, whatever a tokenizer puts before a text."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ebft.data.documents import DocumentOptions, tokenize
from ebft.errors import UserError
from ebft.models.tokenizer import encode, encode_completions
from ebft.parts.splits import Example
from ebft.plans.completion import Completion

LETTERS = "▁\n()+:abcdefnrtux"
PROMPT = "def a(b):"
COMPLETIONS = ["\n    return b", " b", "b", "  b", "\nb", "xb", ""]


def sentencepiece(*, legacy, merges=()):
    """As transformers builds Llama's tokenizer, or with the normalizer of older files."""
    vocabulary = {"<eos>": 0, "<unk>": 1}
    for token in [*LETTERS, *(a + b for a, b in merges)]:
        vocabulary[token] = len(vocabulary)
    model = Tokenizer(models.BPE(vocabulary, list(merges), unk_token="<unk>"))
    if legacy:
        model.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    model.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<eos>", unk_token="<unk>")


@pytest.mark.parametrize("legacy", [True, False], ids=["prepend", "metaspace"])
@pytest.mark.parametrize("completion", COMPLETIONS[:-1])
def test_prompt_and_completion_stay_one_text(legacy, completion):
    tokenizer = sentencepiece(legacy=legacy, merges=[("▁", "▁"), ("▁", "b"), ("▁", "d")])
    example = Example("one", prompt=PROMPT, completion=completion)
    (document,) = tokenize(
        [example], tokenizer, DocumentOptions(length=60), Completion(), split="train"
    ).documents
    assert tokenizer.decode(document.tokens[:-1].tolist()) == PROMPT + completion
    prompt = document.tokens[: document.prompt_length].tolist()
    assert prompt == tokenizer(PROMPT).input_ids


def test_a_mark_that_merges_with_the_text_is_not_taken():
    tokenizer = sentencepiece(legacy=True, merges=[("\n", "b")])
    (ids,) = encode_completions(tokenizer, ["b"])
    assert tokenizer.convert_ids_to_tokens(ids) == ["b"]


def test_a_tokenizer_that_cannot_be_kept_from_its_space_is_refused():
    tokenizer = sentencepiece(legacy=True, merges=[("\n", "b"), ("<unk>", "b"), ("x", "b")])
    with pytest.raises(UserError, match="puts a space before the completion 'b'"):
        encode_completions(tokenizer, ["b"])


def test_a_mark_that_the_tokenizer_drops_is_not_taken():
    tokenizer = sentencepiece(legacy=True)
    strip = normalizers.Strip(left=False, right=True)
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [strip, normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    assert tokenizer("\n").input_ids == []
    (ids,) = encode_completions(tokenizer, ["b"])
    assert tokenizer.convert_ids_to_tokens(ids) == ["b"]


def test_other_tokenizers_are_taken_at_their_word():
    from tests.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    assert encode_completions(tokenizer, ["ab", ""]) == tokenizer(["ab", ""]).input_ids


def test_half_of_a_surrogate_pair_is_no_text():
    from tests.tiny import tiny_tokenizer

    with pytest.raises(UserError, match=r"half of a surrogate pair.* at the end of 'abc\\ud83d'"):
        encode(tiny_tokenizer(), ["ab", "abc\ud83d and so on"])
