"""Figures of a whole corpus: sacrebleu's own numbers, and intervals that mean something."""

import sys
from typing import get_args

import pytest
import torch

from ebft.errors import UserError
from ebft.evaluation.measure import EvaluationSet, joined, measure
from ebft.evaluation.sacre import SacreMetric, Tokenizer
from ebft.evaluation.translation import Translation
from ebft.parts.measurements import CorpusMeasurement
from ebft.rollout.micro_batches import MicroBatch
from ebft.rollout.records import Document
from ebft.scoring.estimators import influence_values
from ebft.scoring.interval import mean_interval
from ebft.testing.tiny import tiny_documents, tiny_policy, tiny_resources, tiny_tokenizer

metrics = pytest.importorskip("sacrebleu.metrics")

TRANSLATIONS = ["the cat sat on mat", "a dog barks loudly now", "x", "it is a fine day today"]
REFERENCES = ["the cat sat on the mat", "the dog barks loudly", "y z", "today is a fine day"]
THEIRS = {
    "bleu": lambda: metrics.BLEU(),
    "chrf": lambda: metrics.CHRF(),
    "chrf++": lambda: metrics.CHRF(word_order=2),
}


@pytest.mark.parametrize("name", THEIRS)
def test_the_figure_is_sacrebleus(name):
    metric = SacreMetric(name, tokenize="13a")
    values = influence_values(metric.statistics(TRANSLATIONS, REFERENCES), metric.figure)
    theirs = THEIRS[name]().corpus_score(TRANSLATIONS, [REFERENCES]).score
    assert values.mean().item() == pytest.approx(theirs, abs=1e-9)
    assert 0 < theirs < 100


@pytest.mark.parametrize("name", THEIRS)
def test_the_interval_is_the_jackknifes(name):
    metric, B = SacreMetric(name, tokenize="13a"), len(TRANSLATIONS)
    values = influence_values(metric.statistics(TRANSLATIONS, REFERENCES), metric.figure)
    without = torch.tensor(
        [
            THEIRS[name]()
            .corpus_score(
                TRANSLATIONS[:i] + TRANSLATIONS[i + 1 :], [REFERENCES[:i] + REFERENCES[i + 1 :]]
            )
            .score
            for i in range(B)
        ],
        dtype=torch.float64,
    )
    jackknife = ((B - 1) / B * (without - without.mean()).square().sum()).sqrt()
    assert (values.std() / B**0.5).item() == pytest.approx(jackknife.item(), rel=1e-9)


def test_of_a_mean_the_values_are_the_documents_own():
    rows = torch.tensor([[1.0, 2.0], [4.0, 2.0], [7.0, 2.0]], dtype=torch.float64)
    values = influence_values(rows, lambda total: total[0] / total[1])
    torch.testing.assert_close(values, rows[:, 0] / 2)
    assert influence_values(rows[:1], lambda total: total[0]).tolist() == [1]


def test_parts_are_joined_before_the_figure():
    def part(rows, weight):
        statistics = torch.tensor(rows, dtype=torch.float64)
        weights = torch.tensor(weight, dtype=torch.float64)
        return CorpusMeasurement("ratio", "", statistics, weights, lambda t: t[0] / t[1])

    whole = joined([part([[1, 1], [9, 9]], [1, 0]), part([[2, 4]], [1])], torch.cat)
    assert mean_interval(whole).mean == pytest.approx(3 / 5)
    assert mean_interval(whole).count == 2
    assert not joined([part([[1, 1]], [0])], torch.cat).weight.any()


class TestEvaluator:
    @pytest.fixture(scope="class")
    def resources(self):
        return tiny_resources(tiny_policy())

    @pytest.fixture
    def documents(self):
        ids = tiny_tokenizer()
        texts = ("abcdefgh", "ab", "bcdefghi", "cdefghij")
        return [
            Document(text, torch.tensor([*ids(text).input_ids, 1]), 3 if len(text) > 2 else 0)
            for text in texts
        ]

    def test_it_does_not_depend_on_the_batch(self, resources, documents):
        evaluator = Translation(rollout_length=4, metrics=("chrf", "bleu")).build(resources)
        found = []
        for size in (1, 2, 4):
            sets = [EvaluationSet("test", documents, [evaluator])]
            measured = measure(resources.policy, sets, micro_batch=MicroBatch(size), steps_done=0)
            found.append({name: mean_interval(one).mean for name, one in measured.items()})
        assert found[0] == found[1] == found[2]
        assert list(found[0]) == ["test chrF", "test BLEU"]
        assert measured["test chrF"].weight.tolist() == [1, 0, 1, 1], "one has no prompt"

    def test_a_translation_ends_before_a_stop_text(self, resources, documents):
        def translations(*stop):
            evaluator = Translation(rollout_length=8, stop=stop).build(resources)
            return [it.rollout for it in evaluator.translate(resources.policy, documents).attempts]

        whole = translations()
        letter = whole[0].split()[1]
        assert translations(letter) == [text.split(letter)[0].strip() for text in whole]
        assert len(translations(letter)[0]) < len(whole[0])

    def test_the_reference_is_the_whole_completion(self, resources, documents):
        (short,) = Translation(rollout_length=1, metrics=("chrf",)).build(resources)(
            resources.policy, documents[:1]
        )
        metric = SacreMetric("chrf", tokenize="13a")
        expected = metric.statistics(["z"], ["d e f g h"])
        assert short.statistics[0, 1] == expected[0, 1], "characters of the reference"

    def test_raw_text_is_not_translated(self, resources):
        measured = Translation(rollout_length=2).build(resources)(
            resources.policy, tiny_documents([8, 9])
        )
        assert not any(m.weight.any() for m in measured)


def test_the_tokenizers_are_sacrebleus():
    assert set(get_args(Tokenizer)) == set(metrics.BLEU.TOKENIZERS)


def test_what_is_missing_is_known_before_anything_is_loaded(tmp_path, monkeypatch):
    there = {"sentencepiece": "anywhere", "MeCab": None}
    monkeypatch.setattr("ebft.evaluation.sacre.find_spec", there.get)
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    with_model = Translation(tokenize="flores200")
    assert str(tmp_path / "models" / "flores200sacrebleuspm") in with_model.missing()
    assert not list(tmp_path.iterdir()), "nothing is downloaded"
    assert Translation(tokenize="flores200", metrics=("chrf",)).missing() is None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flores200sacrebleuspm").touch()
    assert with_model.missing() is None
    with pytest.raises(UserError, match="tokenize = ko-mecab: needs MeCab"):
        SacreMetric("bleu", tokenize="ko-mecab")


def test_without_sacrebleu(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(UserError, match=r"pip install 'ebft\[eval\]'"):
        SacreMetric("bleu", tokenize="13a")


def test_a_tokenizer_that_is_not_there():
    with pytest.raises(UserError, match=r"tokenize = 13b: sacrebleu has .*13a"):
        SacreMetric("bleu", tokenize="13b")
