"""Small configurations of any architecture of transformers, made in several ways, the smallest first."""

import re
from collections.abc import Callable, Iterator
from typing import Any

VOCABULARY = 64
POSITIONS = 96
_TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4}
_LAYERS = (r"(num_|n_)?(hidden_)?layers?|n_layer|(encoder|decoder|text|num_encoder|num_decoder|num_hidden)_layers|"
           r"(e|d)_layers|num_hidden_groups|num_mtp_layers|(encoder|decoder|num)_(num_)?hidden_layers|"
           r"depth")  # fmt: skip
_COUNTS: tuple[tuple[str, int], ...] = (
    (_LAYERS, 2),
    (r"vocab_size|vocab_size_per_layer_input|entity_vocab_size", VOCABULARY),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length|max_source_positions", POSITIONS),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok|moe_k|top_k|moe_topk", 2),
    (r"n_group|topk_group|n_shared_experts|first_k_dense_replace", 1),
    (r"intermediate_size|d_ff|(encoder_|decoder_)?ffn_dim|ffn_hidden_size|n_inner|moe_intermediate_size|d_inner|"
     r"shared_expert_intermediate_size|feed_forward_proj_dim|dense_ffn_hidden_size|expert_ffn_hidden_size", 40),
)  # fmt: skip
_WIDTHS: tuple[tuple[str, int], ...] = (
    (r"(num_)?(attention_|query_)?heads|num_attention_heads|n_heads?|(encoder|decoder)_attention_heads|"
     r"mamba_n_heads|linear_num_(key|value)_heads|mamba_num_heads", 4),
    (r"num_key_value_heads|num_kv_heads|n_kv_heads|multi_query_group_num", 2),
    (r"head_dim|d_kv|attention_head_size|kv_channels|v_head_dim|qk_nope_head_dim|linear_(key|value)_head_dim|"
     r"global_head_dim", 8),
    (r"qk_rope_head_dim|rotary_dim", 8),
    (r"kv_lora_rank|q_lora_rank|o_lora_rank", 8),
    (r"hidden_size|d_model|n_embd|emb_dim|dim|hidden_dim|n_embed|embed_dim|word_embed_proj_dim|attention_hidden_size|"
     r"projection_dim|embedding_size|lru_width|d_embed|model_dim|backbone_hidden_size", 32),
    (r"image_size", 32),
    (r"patch_size", 8),
)  # fmt: skip
_HEADS = ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads", "n_heads")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "embed_dim", "dim")
_KEY_VALUE = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")
_DERIVED = re.compile(r"layer_types|.*_layer_types|mlp_layer_types|depths|.*_indices|block_types|layers_block_type|"
                      r"torch_dtype|dtype|architectures|transformers_version|.*token_id")  # fmt: skip
OVERRIDES: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "funnel": {"block_sizes": [1, 1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 40},
    "reformer": {
        "hidden_size": 32, "axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 16),
        "attention_head_size": 8, "num_attention_heads": 2, "feed_forward_size": 40,
        "attn_layers": ["local", "lsh"], "max_position_embeddings": 128, "is_decoder": False,
        "num_buckets": 4,
    },
    "perceiver": {"d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 1, "d_model": 32},
    "mamba2": {"hidden_size": 32, "expand": 2, "num_heads": 8, "head_dim": 8, "state_size": 8, "num_hidden_layers": 2},
    "bridgetower": {"text_config": {"num_hidden_layers": 2}, "num_hidden_layers": 2},
    "lilt": {"hidden_size": 48, "num_attention_heads": 4},
    "luke": {"entity_vocab_size": 20, "entity_emb_size": 32},
    "mluke": {"entity_vocab_size": 20, "entity_emb_size": 32},
    "dbrx": {
        "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": POSITIONS, "vocab_size": VOCABULARY,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
}  # fmt: skip
"""What a type needs besides, by its own names."""


def configs(config_class: Any) -> Iterator[Callable[[], Any]]:
    """Ways to make a small configuration of a class; any may raise."""
    values = config_class().to_dict()
    besides = OVERRIDES.get(config_class.model_type, {})
    yield lambda: config_class.from_dict(_with_range(_all(values)) | besides)
    yield lambda: config_class(**(_changes(values, (*_COUNTS, *_WIDTHS)) | besides))
    yield lambda: config_class(**(_few_heads(values) | besides))
    yield lambda: config_class(**(_changes(values, _COUNTS) | besides))
    yield lambda: config_class(**(_changes(values, _COUNTS[:2]) | besides))


def _all(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration's values with small sizes; what follows from others is left to the class."""
    small: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and name.endswith(("config", "_cfg")):
            small[name] = _with_range(_all(value))
        elif name in _TOKENS and not isinstance(value, list):
            small[name] = _TOKENS[name]
        elif not _DERIVED.fullmatch(name):
            small[name] = _size(name, value, (*_COUNTS, *_WIDTHS))
    return small


def _with_range(values: dict[str, Any]) -> dict[str, Any]:
    if isinstance(values.setdefault("initializer_range", 0.2), float):
        values["initializer_range"] = 0.2
    return values


def _changes(values: dict[str, Any], sizes: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """Only the values that are made smaller, the configurations inside among them."""
    small: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and name.endswith(("config", "_cfg")) and value.get("model_type"):
            small[name] = {"model_type": value["model_type"], **_changes(value, sizes)}
        elif name in _TOKENS and isinstance(value, int) and value >= VOCABULARY:
            small[name] = _TOKENS[name]
        elif not _DERIVED.fullmatch(name) and (size := _size(name, value, sizes)) != value:
            small[name] = size
    return small


def _few_heads(values: dict[str, Any]) -> dict[str, Any]:
    """Two heads of the size they have, where rotations are laid out for it."""
    small = _changes(values, _COUNTS)
    heads = next((name for name in _HEADS if isinstance(values.get(name), int)), None)
    hidden = next((name for name in _HIDDEN if isinstance(values.get(name), int)), None)
    if heads and hidden and values[heads] > 2 and values[hidden] % values[heads] == 0:
        small |= {heads: 2, hidden: 2 * values[hidden] // values[heads]}
        small |= {name: min(2, values[name]) for name in _KEY_VALUE if isinstance(values.get(name), int)}
    for name, value in values.items():
        if isinstance(value, dict) and name in small:
            small[name] = {"model_type": value["model_type"], **_few_heads(value)}
    return small


def _size(name: str, value: Any, sizes: tuple[tuple[str, int], ...]) -> Any:
    if name == "vocab_size" and value is None:
        return VOCABULARY
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    for pattern, size in sizes:
        if re.fullmatch(pattern, name):
            return min(size, value) if value > 0 else value
    return value
