"""`make_tiny_model.py FOLDER`, by the Python that has unbabel-comet: a tiny COMET model.

Its classes are the library's own: a trained tokenizer and an encoder with random weights as they
are on the hub, and a checkpoint with hparams.yaml as COMET's models have them.
"""

import sys
from pathlib import Path

import pytorch_lightning as ptl
import torch
import yaml
from comet.models import RegressionMetric
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import UnigramTrainer
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = ["the cat sat on the mat and slept", "der Hund bellt laut, aber die Katze schläft"]
LETTERS = " ".join(map(chr, range(33, 127)))


def make_encoder(folder):
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = Metaspace()
    trainer = UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>")
    tokenizer.train_from_iterator([*TEXTS * 20, LETTERS], trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    XLMRobertaTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=48, max_position_embeddings=130,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)


def main(folder):
    torch.manual_seed(0)
    encoder = folder / "encoder"
    make_encoder(encoder)
    model = RegressionMetric(
        pretrained_model=str(encoder), hidden_sizes=[24, 12], nr_frozen_epochs=0.3,
        layer_transformation="sparsemax", layer_norm=False, activations="Tanh",
    )  # fmt: skip
    trainer = ptl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "checkpoints" / "model.ckpt", weights_only=True)
    (folder / "hparams.yaml").write_text(yaml.safe_dump(dict(model.hparams)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
