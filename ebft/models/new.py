"""Makes the model and the tokenizer of `model.from_config`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from ebft.errors import UserError
from ebft.models.new_options import BYTES, BpeOptions, FromConfigOptions
from ebft.models.refused import refusing
from ebft.parts.interfaces import DataSource

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

KEY = "model.from_config"
SPECIAL = ["<pad>", "<eos>"]


def new_model(
    options: FromConfigOptions, dtype: torch.dtype, attention: str | None
) -> PreTrainedModel:
    """A model with random weights from the options' seed, drawn in float32.

    `attention` names an implementation; None is the model's own. Raises what transformers raises
    for sizes that make no model.
    """
    config = new_config(options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=attention
        )
    return cast("PreTrainedModel", model.to(dtype))


def new_config(options: FromConfigOptions) -> PretrainedConfig:
    """The configuration with the tokenizer's vocabulary. Trains no tokenizer.

    Raises `UserError` for a tokenizer that cannot be loaded.
    """
    given = {key: value for key, value in options.config.items() if key != "model_type"}
    make = CONFIG_MAPPING[options.config["model_type"]]
    if options.bpe is None:
        tokenizer = new_tokenizer(options)
        size, pad, start, end = (
            len(tokenizer), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id
        )  # fmt: skip
    else:  # with few texts, training finds fewer tokens than this
        size, pad, start, end = options.bpe.vocab_size, 0, None, 1
    config = make(
        **given, vocab_size=size, pad_token_id=pad, bos_token_id=start, eos_token_id=end
    )  # fmt: skip
    return cast("PretrainedConfig", config)


def new_tokenizer(options: FromConfigOptions) -> PreTrainedTokenizerBase:
    """Makes, trains or loads the tokenizer. Raises `UserError` if it cannot be loaded, or if the
    data to train it on have no texts."""
    if options.bpe is not None:
        return _fast(_train(options.bpe))
    if options.tokenizer == BYTES:
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
        return _fast(_byte_level(models.BPE(vocab=vocabulary, merges=[])))
    with refusing(
        f"{KEY}.tokenizer = {options.tokenizer}: is no tokenizer that transformers can load",
        f"give {BYTES}, or a folder or hub id with a tokenizer",
        folder=options.tokenizer,
    ):
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        tokenizer("a")  # a damaged tokenizer may fail only when it is used
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return cast("PreTrainedTokenizerBase", tokenizer)


def _train(options: BpeOptions) -> Tokenizer:
    source = options.data
    if not isinstance(source, DataSource):
        raise UserError(
            f"{KEY}.bpe.data: {type(source).__name__} reads its texts with the model's tokenizer; "
            "choose another source"
        )
    texts = source().train
    if not texts:
        raise UserError(f"{KEY}.bpe.data: the source has no texts to train on; give it some")

    def read() -> Iterator[str]:
        for example in texts:
            yield from filter(None, (example.prompt, example.completion))

    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(read(), trainer)
    return tokenizer


def _byte_level(model: models.Model) -> Tokenizer:
    """A tokenizer without unknown characters, whose texts have no space put before them."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerBase:
    pad, end = SPECIAL
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, eos_token=end)
    return cast("PreTrainedTokenizerBase", made)
