from dataclasses import replace

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from ebft.data import documents as data_documents
from ebft.data.corpus import InMemory, digest_documents
from ebft.data.documents import DocumentOptions, tokenize
from ebft.data.on_demand import OnDemand
from ebft.data.order import DocumentOrder, told_apart
from ebft.errors import UserError
from ebft.parts.splits import Example, Message
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from ebft.rollout.records import Document
from ebft.training.objective import cross_entropy_mask
from tests.tiny import VOCAB, tiny_documents, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PLAN = Strided(start=2, stride=1, rollout_length=2)


def decode(document):
    return TOKENIZER.decode(document.tokens.tolist()).replace(" ", "")


def test_raw_text_is_cut_into_consecutive_documents():
    found = tokenize(
        [Example("f.py", "abcdefghijk")], TOKENIZER, DocumentOptions(length=4), PLAN, split="train"
    )
    assert [(d.name, decode(d), d.cluster) for d in found.documents] == [
        ("f.py#1", "abcd", "f.py"),
        ("f.py#2", "efgh", "f.py"),
    ]
    assert found.dropped == {"too short for the plan": 1}


def test_prompt_and_completion_are_one_document_that_ends():
    example = Example("r:1", completion="cd", prompt="ab", cluster="r")
    found = tokenize(
        [example], TOKENIZER, DocumentOptions(length=9), Completion(), split="train"
    ).documents
    assert found[0].prompt_length == 2
    assert decode(found[0]) == "abcd<eos>"
    assert found[0].cluster == "r"


def test_what_does_not_fit_is_dropped_and_counted():
    examples = [
        Example("1", prompt="ab", completion="cd"),
        Example("2", prompt="ab", completion="cdefghi"),
        Example("3", prompt="ab", completion=""),
        Example("4", completion="abc"),
    ]
    found = tokenize(examples, TOKENIZER, DocumentOptions(length=6), Completion(), split="train")
    assert [d.name for d in found.documents] == ["1"]
    assert found.dropped == {
        "longer than documents.length": 1,
        "empty": 1,
        "without a prompt": 1,
    }


def test_documents_have_the_shortest_length_or_more():
    examples = [Example("4", "abcd"), Example("5", "abcde"), Example("6", "abcdef")]
    options = DocumentOptions(length=9, shortest=5)
    found = tokenize(examples, TOKENIZER, options, PLAN, split="train")
    assert [d.tokens.numel() for d in found.documents] == [5, 6]
    assert found.dropped == {"shorter than documents.shortest": 1}


def test_a_prompt_needs_a_completion_and_a_completion_a_prompt():
    tokens = torch.arange(5)
    accepted = [Completion().accepts(Document("x", tokens, prompt)) for prompt in (0, 1, 4, 5)]
    assert accepted == [False, True, True, False]


def test_a_document_as_short_as_its_plan_needs_has_one_context():
    assert PLAN.shortest_document == 4
    shortest, shorter = (Document("x", torch.arange(tokens)) for tokens in (4, 3))
    assert (PLAN.accepts(shortest), PLAN.accepts(shorter)) == (True, False)
    assert PLAN([shortest]).anchor.tolist() == [2]


def test_rollouts_that_the_model_cannot_read_are_not_asked_for():
    examples = [
        Example("fits", prompt="ab", completion="cd"),
        Example("too deep", prompt="abcdef", completion="g"),
    ]
    options, plan = DocumentOptions(length=9), Completion(rollout_length=5)
    found = tokenize(examples, TOKENIZER, options, plan, split="train", reads=9)
    assert [d.name for d in found.documents] == ["fits"]
    assert found.dropped == {"with rollouts that end beyond the model's context length": 1}
    with pytest.raises(UserError, match="the model reads 9 tokens; make plan"):
        tokenize(examples[1:], TOKENIZER, options, plan, split="train", reads=9)
    # Rollouts of raw text end where their document does.
    raw = [Example("raw", "abcdefghi")]
    found = tokenize(raw, TOKENIZER, options, PLAN, split="train", reads=9)
    assert not found.dropped


def test_documents_that_are_too_long_name_the_length_that_is_needed():
    examples = [Example(str(n), prompt="ab", completion="c" * n) for n in (9, 7)]
    with pytest.raises(UserError, match=r"none of 2 train .* documents.length=10 or more"):
        tokenize(examples, TOKENIZER, DocumentOptions(length=6), Completion(), split="train")


def prefixed(*prefix, declared=False):
    """A tokenizer that puts these tokens before every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in prefix])
    if declared:
        tokenizer.bos_token = prefix[0]
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in prefix]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=" ".join([*prefix, "$A"]), special_tokens=ids
    )
    return tokenizer, [number for _, number in ids]


PREFIXES = [
    pytest.param(("<bos>",), True, id="declared"),
    pytest.param(("<bos>",), False, id="undeclared"),
    pytest.param(("[gMASK]", "<sop>"), False, id="two"),
]


@pytest.mark.parametrize(("prefix", "declared"), PREFIXES)
@pytest.mark.parametrize("spelled", [False, True], ids=["", "spelled"])
def test_what_a_tokenizer_puts_before_a_text_is_before_every_document_once(
    prefix, declared, spelled
):
    tokenizer, ids = prefixed(*prefix, declared=declared)
    text = "".join(prefix) + "abcdef" if spelled else "abcdef"
    length = 3 + len(ids)
    raw = tokenize(
        [Example("f", text)], tokenizer, DocumentOptions(length=length), PLAN, split="train"
    ).documents
    assert [d.tokens.tolist() for d in raw] == [[*ids, 3, 4, 5], [*ids, 6, 7, 8]]
    pair = [Example("p", prompt=text, completion="g<eos>" if spelled else "g")]
    (document,) = tokenize(
        pair, tokenizer, DocumentOptions(length=20), Completion(), split="train"
    ).documents
    assert document.tokens.tolist() == [*ids, *range(3, 9), 9, tokenizer.eos_token_id]
    assert document.prompt_length == len(ids) + 6
    assert {d.begins for d in [*raw, document]} == {len(ids)}


def test_nothing_predicts_what_is_before_every_text():
    tokenizer, ids = prefixed("[gMASK]", "<sop>")
    plan = Strided(start=1, stride=2, rollout_length=2)
    documents = tokenize(
        [Example("f", "abcdef")], tokenizer, DocumentOptions(length=20), plan, split="train"
    ).documents
    contexts = plan(documents)
    assert contexts.anchor.tolist() == [2, 4, 6]
    assert contexts.tokens[0, :2].tolist() == ids
    assert cross_entropy_mask(contexts, "all").tolist() == [[False] * 2 + [True] * 6]


def test_a_prefix_that_leaves_no_room():
    tokenizer, _ = prefixed("[gMASK]", "<sop>")
    with pytest.raises(UserError, match=r"documents\.length = 2: leaves no .*\.length=3 or more"):
        tokenize([Example("f", "a")], tokenizer, DocumentOptions(length=2), PLAN, split="train")


def test_an_alphabet_without_an_a():
    vocabulary = {"<pad>": 0, "<eos>": 1, "C": 2, "G": 3, "T": 4}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [])), eos_token="<eos>", pad_token="<pad>"
    )
    pair = [Example("p", prompt="CG", completion="TG")]
    (document,) = tokenize(
        pair, tokenizer, DocumentOptions(length=9), Completion(), split="train"
    ).documents
    assert document.tokens.tolist() == [2, 3, 4, 3, 1]
    nothing = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"<eos>": 0}, [])))
    nothing.eos_token = "<eos>"
    with pytest.raises(UserError, match=r"model\.path: its tokenizer has tokens for no text"):
        tokenize(pair, nothing, DocumentOptions(length=9), Completion(), split="train")


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_token_without_an_embedding_is_not_given_to_the_model(on_demand):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    options = DocumentOptions(length=8, on_demand=on_demand)
    examples = [Example("spells it", "ab[PAD]cd"), Example("does not", "abcd")]
    found = tokenize(examples, tokenizer, options, PLAN, split="train", embeds=VOCAB)
    assert {it.name for it in found.documents} == {"does not#1"}
    if not on_demand:
        assert found.dropped == {"with a token that the model has no embedding for": 1}


def test_no_document_left_says_why():
    with pytest.raises(
        UserError, match=r"none of 2 held-out documents .*2 too short .* 4 tokens or more"
    ):
        tokenize(
            [Example("a", "abc"), Example("b", "ab")],
            TOKENIZER,
            DocumentOptions(length=8),
            PLAN,
            split="held-out",
        )


@pytest.mark.parametrize("on_demand", [False, True])
@pytest.mark.parametrize(
    ("split", "says"),
    [
        ("train", r"no train texts, or only copies .*; give it some \(gsm8k: data.train_path\)"),
        ("HumanEval", "no HumanEval texts; give it some, or choose another"),
    ],
)
def test_a_source_without_texts(on_demand, split, says):
    options = DocumentOptions(length=8, on_demand=on_demand)
    with pytest.raises(UserError, match=f"data: the source has {says}"):
        tokenize([], TOKENIZER, options, PLAN, split=split)


def test_order_visits_every_document_once_an_epoch_and_repeats_itself():
    order = DocumentOrder(seed=3, size=7)
    seen = [i for step in range(7) for i in order(step, 3)]
    for epoch in range(3):
        assert sorted(seen[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert DocumentOrder(seed=3, size=7)(4, 3) == order(4, 3)
    other = DocumentOrder(seed=4, size=7)
    assert [other(step, 3) for step in range(2)] != [order(step, 3) for step in range(2)]


def test_a_document_that_comes_again_in_a_step_is_told_apart_and_no_other():
    one, other = tiny_documents([4, 5])
    told = told_apart([one, other, one, one])
    assert [it.name for it in told] == ["doc0", "doc1", "doc0 (2)", "doc0 (3)"]
    assert all(it.tokens is one.tokens for it in (told[0], told[2], told[3]))


def test_documents_in_memory_are_those_that_were_given():
    given = [
        Document("a#1", torch.tensor([3, 1, 2]), check="x == 1", cluster="a", begins=1),
        Document("b", torch.tensor([], dtype=torch.long)),
        Document("c", torch.tensor([2**31 - 1, 0, 5]), 1, turns=((1, 2), (2, 3))),
    ]
    kept = InMemory(iter(given))
    assert len(kept) == 3
    for place in (0, 1, 2, -1, -2, -3):
        found = kept[place]
        assert found.tokens.dtype == torch.int64
        assert found.tokens.tolist() == given[place].tokens.tolist()
        # Python 3.13 compares field by field, and a tensor of several numbers is not true or false.
        one = torch.tensor([0])
        assert replace(found, tokens=one) == replace(given[place], tokens=one)
    for place in (3, -4):
        with pytest.raises(IndexError):
            kept[place]
    assert [found.name for found in kept[1:]] == ["b", "c"]
    assert [found.name for found in kept.choose([2, 0, 1], 2)] == ["c", "a#1"]
    assert kept.digest() == digest_documents(given)


def test_a_document_in_memory_can_be_changed_without_changing_the_corpus():
    kept = InMemory([Document("a", torch.tensor([1, 2]))])
    kept[0].tokens[0] = 9
    assert kept[0].tokens.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("said", "large", "on_demand"),
    [("auto", 29, True), ("auto", 30, False), (True, 30, True), (False, 29, False)],
)
def test_a_large_split_is_tokenized_on_demand(monkeypatch, said, large, on_demand):
    monkeypatch.setattr(data_documents, "LARGE", large)
    examples = [Example("r:1", "abcd", "efgh"), Example("r:2", "ab" * 11)]  # 30 characters
    options = DocumentOptions(length=8, on_demand=said)
    found = tokenize(examples, TOKENIZER, options, PLAN, split="train")
    assert isinstance(found.documents, OnDemand) is on_demand


def test_the_messages_of_a_conversation_count_once(monkeypatch):
    talk = [Message("user", "a" * 1000), Message("assistant", "b" * 1000, True, "c" * 1000)]
    examples = [Example.of_messages("r:1", talk)] * 3
    monkeypatch.setattr(data_documents, "LARGE", 9000)
    assert data_documents.is_large(examples)
    monkeypatch.setattr(data_documents, "LARGE", 9100)
    assert not data_documents.is_large(examples)


def test_a_split_is_not_read_whole_to_know_its_size(monkeypatch):
    read = []

    class Texts(list):
        def __getitem__(self, place):
            read.append(place)
            return Example(str(place), "abcd")

    assert not data_documents.is_large(Texts(range(100_000)))
    assert len(read) == data_documents.MEASURED
    assert max(read) - min(read) > 90_000
    monkeypatch.setattr(data_documents, "LARGE", 399_999)
    assert data_documents.is_large(Texts(range(100_000)))
