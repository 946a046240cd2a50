import pytest
import torch
from pydantic import ValidationError

from ebft.data.arithmetic_traces import ArithmeticTraces
from ebft.errors import UserError
from ebft.models.attention import TREE
from ebft.models.load import load_frozen, load_policy, load_tokenizer
from ebft.models.new import new_config
from ebft.models.new_options import BYTE_TOKENS, BpeOptions, FromConfigOptions
from ebft.models.options import LoraOptions, ModelOptions
from ebft.models.weights import digest_weights
from tests.tiny import tiny_tokenizer

SIZES = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
}  # fmt: skip
TEXTS = ArithmeticTraces(train=50)
STRANGE = "naïve \N{SNOWMAN}\n\t(7-(3*4)) <eos"


def section(**options):
    return FromConfigOptions(**{"config": SIZES, **options})


def model(**options):
    return ModelOptions(from_config=section(**options), device="cpu")


def test_the_policy_has_the_sizes_and_the_tokenizers_vocabulary():
    policy, tokenizer = load_policy(model())
    config = policy.config
    assert (config.hidden_size, config.num_hidden_layers) == (32, 2)
    assert policy.get_input_embeddings().weight.shape == (len(tokenizer), 32) == (BYTE_TOKENS, 32)
    assert (config.pad_token_id, config.eos_token_id) == (0, 1)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert config._attn_implementation == TREE
    assert policy.dtype == torch.float32
    assert not policy.training


def test_an_architecture_with_other_names_for_its_sizes():
    sizes = {"model_type": "gpt2", "n_embd": 32, "num_hidden_layers": 2, "n_head": 4}
    policy, _ = load_policy(model(config=sizes))
    assert (policy.config.n_layer, policy.config.hidden_size) == (2, 32)


def test_weights_are_a_function_of_the_seed_alone():
    before = torch.random.get_rng_state()
    first, again, other = (
        digest_weights(load_policy(options)[0]) for options in (model(), model(), model(seed=1))
    )
    assert first == again != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_frozen_copy_has_the_same_weights():
    policy, frozen = load_policy(model())[0], load_frozen(model(), torch.bfloat16)
    assert frozen.dtype == torch.bfloat16
    assert not any(weight.requires_grad for weight in frozen.parameters())
    for one, other in zip(policy.parameters(), frozen.parameters(), strict=True):
        assert torch.equal(one.bfloat16(), other)


@pytest.mark.parametrize("bpe", [None, BpeOptions(vocab_size=300, data=TEXTS)])
def test_texts_come_back_from_their_tokens(bpe):
    tokenizer = load_tokenizer(model(bpe=bpe))
    ids = tokenizer(STRANGE).input_ids
    assert tokenizer.decode(ids) == STRANGE
    assert tokenizer("").input_ids == []
    if bpe is None:
        assert len(ids) == len(STRANGE.encode())


def test_a_trained_tokenizer_needs_fewer_tokens_for_its_texts():
    options = model(bpe=BpeOptions(vocab_size=300, data=TEXTS))
    trained, plain = load_tokenizer(options), load_tokenizer(model())
    texts = [example.prompt + example.completion for example in TEXTS().train]
    count = [sum(len(it(text).input_ids) for text in texts) for it in (trained, plain)]
    assert count[0] < 0.8 * count[1]
    assert trained.get_vocab() == load_tokenizer(options).get_vocab()
    assert BYTE_TOKENS < len(trained) <= 300
    policy, _ = load_policy(options)
    assert policy.get_input_embeddings().weight.shape[0] == 300
    assert new_config(options.from_config).vocab_size == 300


def test_a_tokenizer_from_a_folder(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    policy, tokenizer = load_policy(model(tokenizer=str(tmp_path)))
    assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    assert policy.config.vocab_size == len(tokenizer)


def test_a_tokenizer_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"model.from_config.tokenizer = .*; give bytes, or a fol"):
        load_policy(model(tokenizer=str(tmp_path)))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "config.model_type.*missing; give an architecture"),
        ({"model_type": "lama"}, "no causal language model of this name; did you mean 'llama'"),
        ({"model_type": "gemma3"}, "of several models; give one of text alone.*'gemma3_text'"),
        ({**SIZES, "hiden_size": 8}, "hiden_size.*unknown key; did you mean 'hidden_size'"),
        ({**SIZES, "vocab_size": 8}, "vocab_size.*is the tokenizer's; leave it out"),
        ({**SIZES, "hidden_size": "8"}, "hidden_size.*expected int"),
        ({**SIZES, "hidden_size": 33}, "not a multiple of the number of attention heads"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_in_the_configuration(config, says):
    with pytest.raises(ValidationError, match=f"(?s){says}"):
        FromConfigOptions(config=config)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "path: missing; name a model, or give from_config"),
        ({"path": "x", "from_config": section()}, "path: of a model that is loaded"),
        ({"base": "x", "from_config": section()}, "base: of a model that is loaded"),
        ({"lora": LoraOptions(), "from_config": section()}, "lora: of a model that is loaded"),
    ],
)
def test_one_model_and_no_more(options, says):
    with pytest.raises(ValidationError, match=says):
        ModelOptions(**options)


def test_a_tokenizer_is_named_or_trained():
    with pytest.raises(ValidationError, match="tokenizer = gpt2: is not used, because bpe trains"):
        section(tokenizer="gpt2", bpe=BpeOptions(vocab_size=300, data=TEXTS))
