"""The section `model.from_config:` of a recipe, a model that does not exist yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ebft.errors import Mistake, first_line, suggest, unknown_key, validation_error
from ebft.options import Options
from ebft.parts.part import Part, part_of

BYTES = "bytes"
BYTE_TOKENS = 258
"""Tokens of the tokenizer `bytes`: padding, end-of-sequence, and the 256 bytes."""
OF_THE_TOKENIZER = ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
"""Keys of a configuration whose values are the tokenizer's."""


class BpeOptions(Options):
    """A byte-level BPE tokenizer, as GPT-2's, trained on a data source's texts to train on."""

    vocab_size: int = Field(ge=BYTE_TOKENS, description="its number of tokens")
    data: Annotated[Part, part_of("data")] = Field(
        description="the data source; `${data}` is that of the recipe"
    )


class FromConfigOptions(Options):
    """A model with random weights, made from an architecture of transformers and its sizes.

    It is the same for the same options and versions, so nothing is written but checkpoints.
    """

    config: dict[str, Any] = Field(
        description="`model_type` (llama, gpt2, …) and keys of that architecture's configuration "
        "in transformers, such as hidden_size; a key that is left out has its default there"
    )
    tokenizer: str = Field(
        BYTES,
        description="bytes: each byte of a text is a token; or a folder or hub id with a tokenizer",
    )
    bpe: BpeOptions | None = Field(
        None, description="train a tokenizer on texts; null: `tokenizer` names one"
    )
    seed: int = Field(0, ge=0, description="seed of the weights")

    @model_validator(mode="after")
    def _is_a_configuration(self) -> Self:
        if mistakes := list(_mistakes(self.config)):
            raise validation_error(type(self).__name__, mistakes)
        if self.bpe is not None and self.tokenizer != BYTES:
            raise ValueError(
                f"tokenizer = {self.tokenizer}: is not used, because bpe trains one; leave out one "
                "of the two"
            )
        return self


def _mistakes(config: dict[str, Any]) -> Iterator[Mistake]:
    # Imported late, as it takes seconds that other recipes need not wait.
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    name = config.get("model_type")
    known = [it for it in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if it in CONFIG_MAPPING]
    if name not in known:
        said = "missing; give an architecture, such as llama" if name is None else (
            "transformers has no causal language model of this name" + suggest(str(name), known)
        )  # fmt: skip
        yield Mistake(("config", "model_type"), name, said)
        return
    kind = CONFIG_MAPPING[name]
    keys = {field.name for field in fields(kind)} | set(kind.attribute_map)
    if "vocab_size" not in keys:
        text = [it for it in known if it.startswith(name) and it != name]
        yield Mistake(
            ("config", "model_type"), name,
            f"is made of several models; give one of text alone{suggest(f'{name}_text', text)}",
        )  # fmt: skip
        return
    given = {key: value for key, value in config.items() if key != "model_type"}
    wrong = False
    for key, value in given.items():
        if key in OF_THE_TOKENIZER:
            wrong = True
            yield Mistake(("config", key), value, "is the tokenizer's; leave it out")
        elif key not in keys:
            wrong = True
            mistake = unknown_key(key, value, keys - set(OF_THE_TOKENIZER))
            yield mistake._replace(key=("config", key))
    if not wrong:
        try:
            kind(**given)
        except Exception as error:  # each architecture raises its own
            yield Mistake(("config",), name, first_line(error))
