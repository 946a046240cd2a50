# ruff: noqa: E501 — a template is written in few lines
"""Chat templates in the style of four families of models, and a tokenizer of bytes for them.

The assistant's turns are marked with `generation`, so that `apply_chat_template` itself says which
tokens they have.
"""

import copy
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ebft.testing.tiny import CONFIG

CHATML = """\
{%- if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe short.<|im_end|>\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{ message['content'] + '<|im_end|>' }}{% endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
# Earlier turns lose their reasoning, and the last one has a block for it even if there is none.
REASONING = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- if message['role'] == 'assistant' %}
{%- set answer = message['content'].split('</think>')[-1].lstrip('\n') %}
{%- set thought = message['content'].split('</think>')[0].split('<think>')[-1].strip('\n') if '</think>' in message['content'] else '' %}
{%- generation %}
{%- if loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}
{{- answer + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{ message['content'] + '<|im_end|>' }}{% endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
# In the style of Qwen3: tools in the system message, and reasoning in a field of its own, which
# turns before the user's last message lose.
TOOLS = """\
{%- set system = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}
{%- if tools %}
{{- '<|im_start|>system\n' + system + '# Tools\n<tools>' }}
{%- for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}
{{- '\n</tools><|im_end|>\n' }}
{%- elif system %}{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- set asked = namespace(last=0) %}
{%- for message in messages %}{% if message['role'] == 'user' %}{% set asked.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages if message['role'] != 'system' %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- if message['role'] == 'assistant' %}
{%- set first = 1 if system else 0 %}
{%- generation %}
{%- if message.reasoning_content and loop.index0 + first > asked.last %}{{ '<think>\n' + message.reasoning_content.strip('\n') + '\n</think>\n\n' }}{% endif %}
{{- message['content'] }}
{%- for call in message.tool_calls or [] %}{{ '<tool_call>\n' + (call.function | tojson) + '\n</tool_call>' }}{% endfor %}
{{- '<|im_end|>' }}{% endgeneration %}
{%- else %}{{ message['content'] + '<|im_end|>' }}{% endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
PARTS = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\n' }}
{%- set text = namespace(joined='') %}
{%- if message['content'] is string %}{% set text.joined = message['content'] %}
{%- else %}{% for part in message['content'] %}{% set text.joined = text.joined + part['text'] %}{% endfor %}{% endif %}
{%- if message['role'] == 'assistant' %}{% generation %}{{ text.joined + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{ text.joined + '<|im_end|>' }}{% endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA_3 = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}
{%- else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
MISTRAL = """\
{{- bos_token }}
{%- set system = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' %}
{%- set turns = messages[1:] if system else messages %}
{%- for message in turns %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('conversation roles must alternate user and assistant') }}
{%- endif %}
{%- if message['role'] == 'user' %}
{{- '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' }}
{%- else %}
{%- generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}
{%- endif %}
{%- endfor %}"""
GEMMA = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
{%- if message['role'] == 'assistant' %}
{{- '<start_of_turn>model\n' }}
{%- generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}
{%- else %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim + '<end_of_turn>' }}{% endif %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""


class Family(NamedTuple):
    """A template, with the tokens that it writes, the one that ends turns and the first one."""

    template: str
    tokens: tuple[str, ...]
    eos: str
    bos: str | None = None


FAMILIES = {
    "ChatML": Family(CHATML, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), "<|im_end|>"),
    "reasoning": Family(REASONING, ("<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "Llama 3": Family(
        LLAMA_3,
        ("<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "<|begin|>",
    ),
    "Mistral": Family(MISTRAL, ("<s>", "</s>"), "</s>", "<s>"),
    "Gemma": Family(
        GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", "<bos>"
    ),
}
MERGES = [("Ċ", "Ċ"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n")]


def chat_tokenizer(family: str, *, eos: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes and a few merges, which puts the family's first token before texts."""
    it = FAMILIES[family]
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for left, right in MERGES:
        vocabulary[left + right] = len(vocabulary)
    model = Tokenizer(models.BPE(vocabulary, MERGES))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(["<pad>", *it.tokens])
    if it.bos is not None:
        model.post_processor = processors.TemplateProcessing(
            single=f"{it.bos} $A", special_tokens=[(it.bos, model.token_to_id(it.bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token=eos or it.eos, bos_token=it.bos, pad_token="<pad>"
    )
    tokenizer.chat_template = it.template
    return tokenizer


def write_chat_model(folder, family, *, eos=None):
    """Writes a tiny model with such a tokenizer to a folder that `model.path` can name."""
    tokenizer = chat_tokenizer(family, eos=eos)
    config = copy.deepcopy(CONFIG)
    config.vocab_size, config.eos_token_id = len(tokenizer), tokenizer.eos_token_id
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def said(role, content):
    return {"role": role, "content": content}


def conversation(i=0, turns=2, system=None, think=False):
    """A conversation of so many turns, each in another length."""
    messages = [] if system is None else [said("system", system)]
    for turn in range(turns):
        answer = f"It is the number {7 * i + turn}" + "!" * turn
        thought = f"<think>\nIn the mind {turn}.\n</think>\n\n" if think else ""
        messages.append(said("user", f"Which one is {i}, in the {turn}th turn?"))
        messages.append(said("assistant", thought + answer))
    return messages
