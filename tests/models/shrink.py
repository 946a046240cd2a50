"""Tiny models of transformers' causal architectures: published configurations with small sizes."""

from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCAB = 24
"""The tokens of `ebft.testing`'s tokenizer."""
LAYERS = 4
WINDOW = 6
"""Sliding windows and chunks: shorter than the documents, so that each architecture uses them."""

SIZES = """
4: num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers
4: num_decoder_layers num_encoder_layers depth num_blocks conf_num_hidden_layers
24: vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size
24: ngram_vocab_size_base
32: hidden_size n_embd d_model dim word_embed_proj_dim hidden_size_global embedding_size
32: attention_hidden_size emb_dim embedding_dim input_embedding_size output_embedding_size
32: lru_width out_hidden_size backbone_hidden_size vision_output_dim projector_output_dim
32: linear_state_size hidden_dim mamba_d_ssm mlp_dim kv_channels_total router_hidden_size
32: local_attention_window_len dim_model_base index_n_dim ple_embed_dim
48: intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner ffn_hidden_size d_ff
48: dim_ff dff intermediate_size_mlp dense_intermediate_size feed_forward_size
48: shared_intermediate_size feed_forward_proj_size d_inner
16: moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size
16: shared_experts_intermediate_size moe_shared_expert_intermediate_size q_lora_rank
16: kv_lora_rank mamba_d_state state_size ssm_state_size index_head_dim o_lora_rank
16: hidden_size_per_layer_input rotary_dim d_rel laurel_rank prompt_mid_dim adapter_rank
8: head_dim v_head_dim qk_nope_head_dim qk_rope_head_dim linear_key_head_dim
8: linear_value_head_dim kv_channels swa_head_dim mamba_head_dim mamba_headdim mamba_d_head
8: attention_head_dim attention_head_size dim_head d_head linear_head_dim global_head_dim
8: query_pre_attn_scalar time_step_rank mamba_dt_rank mamba_chunk_size chunk_size
8: swa_v_head_dim hc_lowrank gated_norm_rank rel_extent index_block_size
6: sliding_window window_size attention_window_size sliding_window_size local_attention
6: attention_chunk_size
4: num_attention_heads n_head n_heads num_heads decoder_attention_heads attention_heads
4: encoder_attention_heads linear_num_value_heads swa_num_attention_heads index_n_heads
4: num_experts num_local_experts n_routed_experts moe_num_experts linear_num_heads
4: num_encoder_attention_heads num_decoder_attention_heads
2: num_key_value_heads n_head_kv num_kv_heads swa_num_key_value_heads linear_num_key_heads
2: global_num_key_value_heads num_experts_per_tok moe_topk num_global_key_value_heads
2: num_kv_shared_layers num_query_groups moe_k top_k_experts first_k_dense_replace
1: n_group topk_group
512: max_position_embeddings n_positions n_ctx max_seq_len model_max_length context_length
"""
BY_NAME = {
    name: int(size)
    for size, names in (line.split(":") for line in SIZES.strip().splitlines())
    for name in names.split()
}


def architectures():
    """The names of all causal architectures that transformers has."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(name, **overrides):
    """The architecture's default configuration with small sizes."""
    cls = CONFIG_MAPPING[name]
    return cls(**shrunk(cls().to_dict()) | OVERRIDES.get(name, {}) | overrides)


def tiny_model(name, **options):
    return AutoModelForCausalLM.from_config(tiny_config(name), **options)


def shrunk(sizes):
    layers = next((sizes[key] for key in COUNTS if isinstance(sizes.get(key), int)), None)
    small = {}
    for key, value in sizes.items():
        if key in LEFT_OUT:
            continue
        if isinstance(value, dict) and key.endswith("config"):
            kind = value.get("model_type")
            small[key] = (
                shrunk(value) | OVERRIDES.get(kind, {}) | ({"model_type": kind} if kind else {})
            )
        elif key in BY_NAME and isinstance(value, int) and not isinstance(value, bool):
            small[key] = min(value, BY_NAME[key])
        elif isinstance(value, list) and len(value) == layers and layers > LAYERS:
            small[key] = of_each_kind(value)
        elif key.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            small[key] = KEPT.get(key, 0)  # what stands for an image is no text
        elif key == "is_decoder":
            small[key] = True  # BERT and others are encoders by default
        else:
            small[key] = value
    return small


KEPT = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
LEFT_OUT = ("model_type", "transformers_version", "architectures", "per_layer_config")


def of_each_kind(values):
    """`LAYERS` of a list's values in their order, with each of its kinds if there are so few."""
    first = [values.index(value) for i, value in enumerate(values) if value not in values[:i]]
    rest = [i for i in range(len(values)) if i not in first]
    return [values[i] for i in sorted((first + rest)[:LAYERS])]


GEMMA_4 = {
    "layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 16, "global_head_dim": 16,
}  # fmt: skip
"""As of E2B and E4B: some layers use the keys and values of earlier ones."""
QWEN_4 = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}  # fmt: skip
OVERRIDES = {
    "axk1": {"num_key_value_heads": 4},
    "axk2": {"num_key_value_heads": 4},
    "bailing_hybrid": {
        "num_key_value_heads": 4, "num_expert_group": 1, "topk_group": 1,
        "num_experts_per_token": 2,
    },
    "bamba": {"mamba_n_heads": 8, "attn_layer_indices": [1, 3]},
    "beam": {"num_key_value_heads": 4},
    "blenderbot": {"encoder_layers": 2, "decoder_layers": 2},
    "blt": {"encoder_hash_byte_group_vocab": 50},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2},
    "deepseek_v3": {"num_key_value_heads": 4},
    "deepseek_v32": {"num_key_value_heads": 4},
    "dots1": {
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1,
        "topk_group": 1,
    },
    "dots3_note": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_ssm": 32},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2, "intermediate_size": 48,
        "activation_sparsity_pattern": None,
    },
    **dict.fromkeys(("gemma4_text", "gemma4_unified_text"), GEMMA_4),
    "glm4_moe_lite": {"num_key_value_heads": 4},
    "glm_moe_dsa": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"mamba_n_heads": 8, "layer_types": ["mamba", "attention"] * 2},
    "hrm_text": {"num_hidden_layers": 2, "num_layers_per_stack": None},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"num_experts_per_token": 2, "num_key_value_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {
        "num_key_value_heads": 4, "num_attention_heads": 4, "zero_expert_num": 2,
        "qk_head_dim": 16, "head_dim": 8,
    },
    "mamba2": {"num_heads": 8},
    "minicpm3": {"num_key_value_heads": 4},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "qwen4_exp_text": QWEN_4,
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "lsh"] * 2},
    "roc_bert": {"pronunciation_vocab_size": 20, "shape_vocab_size": 20},
    "xlm": {"causal": True},
    "xmod": {"default_language": "en_XX"},
    "youtu": {"num_key_value_heads": 4},
    "zamba": {
        "attention_hidden_size": 64, "attention_head_dim": 16,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zamba2": {
        "attention_hidden_size": 64, "attention_head_dim": 16,
        "layers_block_type": ["linear_attention", "hybrid"] * 2, "hybrid_layer_ids": [1, 3],
    },
}  # fmt: skip
"""What the names above do not say."""
