"""A tiny random decoder and documents for it, in float64 so that equalities hold to rounding."""

import copy

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ebft.models import attention
from ebft.parts import Resources
from ebft.rollout.records import Document

VOCAB = 24


CONFIG = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.3,
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=1,
    pad_token_id=0,
    attn_implementation=attention.NAME,
)


def tiny_policy(seed: int = 0, dtype: torch.dtype = torch.float64):
    torch.manual_seed(seed)
    policy = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIG))
    # transformers' RMSNorm computes in float32 whatever the input; torch's keeps float64.
    for parent in list(policy.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "LlamaRMSNorm":
                norm = torch.nn.RMSNorm(CONFIG.hidden_size, eps=CONFIG.rms_norm_eps)
                torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
                setattr(parent, name, norm)
    return policy.to(dtype).eval()


def tiny_documents(lengths: list[int], seed: int = 0, prompt_length: int = 0) -> list[Document]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Document(f"doc{i}", torch.randint(VOCAB, (length,), generator=generator), prompt_length)
        for i, length in enumerate(lengths)
    ]


class Eos:
    """As much of a tokenizer as a sampler needs."""

    def __init__(self, eos_token_id: int) -> None:
        self.eos_token_id = eos_token_id


def tiny_resources(policy, *, micro_batch: int = 2, seed: int = 0, eos: int = 1) -> Resources:
    return Resources(
        policy=policy,
        tokenizer=Eos(eos),
        load_base=lambda: policy,
        device=torch.device("cpu"),
        precision=torch.float32,
        seed=seed,
        micro_batch=micro_batch,
    )


def plain_policy(seed: int = 0):
    """The same decoder as transformers makes and saves it: float32, its own norms."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIG)).eval()


def tiny_tokenizer():
    """Every byte is a token, folded into a small vocabulary; two special tokens."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2}
    for character in "abcdefghijklmnopqrs =":
        vocabulary[character] = len(vocabulary)
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
