"""Tiny random models of any architecture of transformers, with a tokeniser of a few words."""

import re
from pathlib import Path
from typing import Any

import torch

import fusion.torch_compat  # noqa: F401 - first: transformers' import needs it

VOCABULARY = 64
_TOKENS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "mask_token_id": 4}
POSITIONS = 96
_WORDS = "a an the red green blue crab boat sky sun tiny large house sits stands under over near and is of in"
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_PARAMETERS = 8_000_000

_SIZES: tuple[tuple[str, int], ...] = (
    (r"(num_|n_)?(hidden_)?layers?|n_layer|(encoder|decoder|text|num_encoder|num_decoder|num_hidden)_layers|"
     r"(e|d)_layers|num_hidden_groups|num_mtp_layers", 2),
    (r"(num_)?(attention_|query_)?heads|num_attention_heads|n_heads?|(encoder|decoder)_attention_heads|"
     r"mamba_n_heads|linear_num_(key|value)_heads|mamba_num_heads", 4),
    (r"num_key_value_heads|num_kv_heads|n_kv_heads|multi_query_group_num", 2),
    (r"head_dim|d_kv|attention_head_size|kv_channels|v_head_dim|qk_nope_head_dim|linear_(key|value)_head_dim|"
     r"global_head_dim", 8),
    (r"qk_rope_head_dim", 8),
    (r"kv_lora_rank|q_lora_rank|o_lora_rank", 8),
    (r"hidden_size|d_model|n_embd|emb_dim|dim|hidden_dim|n_embed|embed_dim|word_embed_proj_dim|attention_hidden_size|"
     r"projection_dim|embedding_size|lru_width|d_embed|model_dim|backbone_hidden_size", 32),
    (r"intermediate_size|d_ff|(encoder_|decoder_)?ffn_dim|ffn_hidden_size|n_inner|moe_intermediate_size|d_inner|"
     r"shared_expert_intermediate_size|feed_forward_proj_dim|dense_ffn_hidden_size", 40),
    (r"vocab_size|vocab_size_per_layer_input", VOCABULARY),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length|max_source_positions", POSITIONS),
    (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok|moe_k|top_k|moe_topk", 2),
    (r"n_group|topk_group|n_shared_experts", 1),
    (r"rotary_dim", 8),
    (r"image_size", 32),
    (r"patch_size", 8),
)  # fmt: skip
_DERIVED = re.compile(r"layer_types|.*_layer_types|mlp_layer_types|depths|.*_indices|block_types|layers_block_type|"
                      r"torch_dtype|dtype|architectures|transformers_version|.*token_id")  # fmt: skip


def save_tokenizer(folder: Path, *, lowercase: bool = True) -> None:
    """A word-level tokeniser with [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate([*_SPECIAL, *_WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[SEP]", bos_token="[CLS]", mask_token="[MASK]", model_max_length=40,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip


def _shrunk(values: dict[str, Any]) -> dict[str, Any]:
    """A configuration's values with small sizes; what follows from others is left to the class."""
    small: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and name.endswith(("config", "_cfg")):
            small[name] = _shrunk(value)
        elif name in _TOKENS and not isinstance(value, list):
            small[name] = _TOKENS[name]
        elif not _DERIVED.fullmatch(name):
            small[name] = _size(name, value)
    small.setdefault("initializer_range", 0.2)
    if isinstance(small["initializer_range"], float):
        small["initializer_range"] = 0.2
    return small


def _size(name: str, value: Any) -> Any:
    if name == "vocab_size" and value is None:
        return VOCABULARY
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    for pattern, size in _SIZES:
        if re.fullmatch(pattern, name):
            return min(size, value) if value > 0 else value
    return value


def tiny_config(config_class: Any) -> Any:
    """A small configuration of a class."""
    values = config_class().to_dict()
    try:
        return config_class.from_dict(_shrunk(values))
    except Exception:  # noqa: BLE001 - some take only a few arguments
        known = {
            name: value for name, value in _shrunk(values).items() if _size(name, values.get(name)) != values.get(name)
        }
        return config_class(**known)


def build(auto: Any, config: Any, folder: Path) -> Any:
    """A random model of a configuration, saved.

    Raises:
        ValueError: It is not tiny.
    """
    with torch.device("meta"):
        blank = auto.from_config(config) if hasattr(auto, "from_config") else auto(config)
    count = sum(parameter.numel() for parameter in blank.parameters())
    if count > _PARAMETERS:
        raise ValueError(f"{count:,} parameters at the smallest sizes known here")
    torch.manual_seed(0)
    model = (auto.from_config(config) if hasattr(auto, "from_config") else auto(config)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 and parameter.is_floating_point():  # biases and scales that are all 0 or 1
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model
