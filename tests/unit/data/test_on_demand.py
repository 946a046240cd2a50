"""Rows stay on disk, and documents are tokenised when a step asks for them."""

import json

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from ebft.data.documents import DocumentOptions, tokenize
from ebft.data.files import Files
from ebft.data.hub import Hub
from ebft.data.on_demand import OnDemand
from ebft.data.order import DocumentOrder
from ebft.data.rows import Rows
from ebft.errors import UserError
from ebft.evaluation.sets import choose
from ebft.parts.splits import Example
from ebft.plans.completion import Completion
from ebft.plans.strided import Strided
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PLAN = Strided(start=2, stride=1, rollout_length=2)


def lazy(examples, *, length=8, plan=PLAN, characters=1.0):
    options = DocumentOptions(length=length, on_demand=True, characters_per_token=characters)
    return tokenize(examples, TOKENIZER, options, plan, split="train").documents


def text_of(document):
    return TOKENIZER.decode(document.tokens.tolist()).replace(" ", "")


def rows(count=10, **columns):
    columns = columns or {"text": [f"text {i}" for i in range(count)]}
    return Rows(Dataset.from_dict(columns), {"completion": "text"}, "x.jsonl")


class TestRows:
    def test_they_are_the_examples_of_the_data_set(self):
        assert rows()[3] == rows()[-7] == Example("x.jsonl:4", "text 3")
        assert [e.name for e in rows()[2:5]] == ["x.jsonl:3", "x.jsonl:4", "x.jsonl:5"]
        assert rows()[5:5] == []
        assert len(list(rows())) == 10
        with pytest.raises(IndexError):
            rows()[10]

    def test_picked_rows_keep_their_names(self):
        picked = rows().pick(np.array([7, 2, 3]))
        assert [e.name for e in picked] == ["x.jsonl:8", "x.jsonl:3", "x.jsonl:4"]
        assert [e.completion for e in picked.pick(np.array([2]))] == ["text 3"]

    def test_a_row_without_a_text_is_named(self):
        with pytest.raises(UserError, match=r"completion = text: x.jsonl, row 2 has None there"):
            list(rows(text=["a", None]))

    def test_a_text_that_is_not_utf_8_is_refused(self):
        texts = pa.array([b"a", b"\xe9"]).view(pa.string())
        broken = Rows(Dataset(pa.table({"text": texts})), {"completion": "text"}, "o/n")
        with pytest.raises(UserError, match=r"data: o/n, among rows 1 to 2: a text is not UTF-8"):
            broken[:]

    def test_other_columns_of_the_hub_are_not_read(self, monkeypatch):
        class Unreadable(Dataset):
            def __getitem__(self, place):
                assert self.column_names == ["text"]
                return super().__getitem__(place)

        dataset = Unreadable(Dataset.from_dict({"text": ["a", "b"], "picture": [b"", b""]}).data)
        monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: dataset)
        splits = Hub(dataset="o/n", completion="text")()
        assert {e.completion for e in (*splits.train, *splits.held_out)} == {"a", "b"}
        with pytest.raises(UserError, match=r"o/n/train has no such column; there are: text, pic"):
            Hub(dataset="o/n")()

    def test_nothing_is_read_but_what_is_asked_for(self):
        class Counting:
            def __init__(self, dataset):
                self.dataset, self.read = dataset, 0

            def __len__(self):
                return len(self.dataset)

            def __getitem__(self, place):
                batch = self.dataset[place]
                self.read += len(batch["text"])
                return batch

        counting = Counting(Dataset.from_dict({"text": ["abcdefgh"] * 50}))
        documents = lazy(Rows(counting, {"completion": "text"}, "x"))
        after_setup = counting.read
        for step in range(3):
            for place in DocumentOrder(0, len(documents))(step, 4):
                documents[place]
        assert counting.read - after_setup == 12


class TestDocuments:
    def test_pairs_are_those_that_are_tokenised_at_once(self):
        examples = [Example(str(i), prompt="ab", completion="c" * i) for i in range(1, 6)]
        plan = Completion()
        at_once = tokenize(
            examples, TOKENIZER, DocumentOptions(length=20), plan, split="train"
        ).documents
        on_demand = lazy(examples, length=20, plan=plan)
        assert [(d.name, d.tokens.tolist(), d.prompt_length) for d in on_demand] == [
            (d.name, d.tokens.tolist(), d.prompt_length) for d in at_once
        ]

    def test_in_place_of_a_dropped_one_stands_the_next(self):
        lengths = [1, 2, 30, 30, 3]
        examples = [Example(str(i), prompt="ab", completion="c" * n) for i, n in enumerate(lengths)]
        assert [d.name for d in lazy(examples, plan=Completion())] == ["0", "1", "4", "4", "4"]
        assert [d.name for d in lazy(examples[::-1], plan=Completion())] == [
            "4",
            "1",
            "1",
            "1",
            "0",
        ]

    def test_a_held_out_document_counts_once(self):
        examples = [
            Example(str(i), prompt="ab", completion="c" * (30 if i % 5 else 1 + i // 10))
            for i in range(30)
        ]
        chosen = [d.name for d in choose(lazy(examples, plan=Completion()), 32)]
        assert sorted(chosen, key=int) == ["0", "5", "10", "15", "20", "25"]
        assert len(choose(lazy(examples, plan=Completion()), 4)) == 4

    def test_a_resumed_run_knows_the_texts_without_tokenising_them(self):
        texts = [Example("a", "abcdef\nabc\n"), Example("b", "ba\n" * 9)]
        digest = lazy(texts).digest()
        assert digest == lazy(texts).digest()
        changed = [*texts[:1], Example("b", "ba\n" * 8 + "bb\n")]
        for other in (lazy(changed), lazy(texts[::-1]), lazy(texts, characters=2.0)):
            assert other.digest() != digest
        unread = lazy(texts)
        unread._tokenize = None
        assert unread.digest() == digest

    def test_none_that_fits_is_an_error_before_training(self):
        with pytest.raises(UserError, match=r"none of 2 documents in a row .*2 longer than"):
            lazy([Example(i, prompt="a", completion="b" * 30) for i in "xy"], plan=Completion())

    @given(st.lists(st.text(alphabet="ab\n", max_size=40), min_size=1), st.integers(1, 12))
    def test_the_cuts_of_a_text_are_the_text(self, texts, width):
        examples = [Example(str(i), text) for i, text in enumerate(texts)]
        cuts = []
        documents = OnDemand(examples, cuts.append, lambda _: None, width=width)
        for place in range(len(documents)):
            documents[place]
        for i, text in enumerate(texts):
            own = [cut for cut in cuts if cut.name.startswith(f"{i}#")]
            assert "".join(cut.completion for cut in own) == text
            assert all(len(cut.completion) <= 2 * width for cut in own)
            assert all(cut.cluster == str(i) for cut in own)

    def test_cuts_are_at_ends_of_lines_where_there_are_any(self):
        text = "abcd\nefg\nhijklmnop\nqr\n"
        documents = OnDemand([Example("f", text)], lambda e: e, lambda _: None, width=6)
        assert [documents[i].completion for i in range(len(documents))] == [
            "abcd\nefg\n", "hij", "klmnop\n", "qr\n",
        ]  # fmt: skip

    def test_the_same_place_is_the_same_document(self, tmp_path):
        file = tmp_path / "texts.jsonl"
        lines = [json.dumps({"text": f"{a}{b}\n" * 9}) for a in "abcd" for b in "efgh"]
        file.write_text("\n".join(lines))
        first, second = (lazy(Files(path=file, completion="text")().train) for _ in range(2))
        order = DocumentOrder(1, len(first))
        taken = [first[place] for step in range(5) for place in order(step, 4)]
        # Resumed at step 3: nothing before it has to be read again.
        resumed = [second[place] for step in (3, 4) for place in order(step, 4)]
        assert [(d.name, text_of(d)) for d in taken[12:]] == [(d.name, text_of(d)) for d in resumed]
