"""Small models with random weights of every vision architecture of transformers, each with its image processor."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import image_processing_auto, modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

EDGE = 64
_TASKS = (
    "IMAGE", "IMAGE_CLASSIFICATION", "BACKBONE", "ZERO_SHOT_IMAGE_CLASSIFICATION", "ZERO_SHOT_OBJECT_DETECTION",
    "OBJECT_DETECTION", "DEPTH_ESTIMATION", "SEMANTIC_SEGMENTATION", "INSTANCE_SEGMENTATION",
    "UNIVERSAL_SEGMENTATION", "MASKED_IMAGE_MODELING", "IMAGE_TO_IMAGE",
)  # fmt: skip
_MAPPINGS = tuple(f"MODEL_FOR_{task}_MAPPING_NAMES" for task in _TASKS)


def architectures() -> list[str]:
    """Model types with a picture encoder that ``AutoModel`` loads."""
    found = {kind for name in _MAPPINGS for kind in getattr(modeling_auto, name)}
    found |= {kind for kind in modeling_auto.MODEL_MAPPING_NAMES if kind.endswith("_vision_model")}
    return sorted(found & set(modeling_auto.MODEL_MAPPING_NAMES))


_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "embed_dim", "encoder_hidden_size", "decoder_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "mlp_dim", "ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers", "decoder_num_hidden_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"), 4),
    "num_layers": 2, "projection_dim": 24, "vocab_size": 99, "num_queries": 10, "decoder_intermediate_size": 48,
}  # fmt: skip


def _shrunk(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a configuration made small, by what they are called."""
    small: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key.endswith("_config") and value.get("model_type"):
            small[key] = {"model_type": value["model_type"], **_shrunk(value)}
        elif key == "image_size" and value:
            small[key] = EDGE if isinstance(value, int) else [EDGE] * len(value)
        elif key == "depths" and isinstance(value, list):
            small[key] = [1] * len(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            small |= _smaller(key, value, values)
    return small


def _smaller(key: str, value: int, values: dict[str, Any]) -> dict[str, int]:
    if key == "patch_size":
        return {key: min(value, 8)}
    if key.endswith("_token_id"):
        return {key: 1} if value >= _SIZES["vocab_size"] and "vocab_size" in values else {}
    staged = key in ("embed_dim", "hidden_size") and isinstance(values.get("num_heads"), list)
    return {key: _SIZES[key]} if key in _SIZES and value > _SIZES[key] and not staged else {}


def build(kind: str, folder: Path) -> Any:
    """Saves a small random model of a type in ``folder``; returns it.

    Raises:
        Exception: Whatever its configuration or model raises.
    """
    values = CONFIG_MAPPING[kind]().to_dict()
    config = CONFIG_MAPPING[kind](**(_shrunk(values) | OVERRIDES.get(kind, {})))
    with torch.device("meta"):
        count = sum(value.numel() for value in transformers.AutoModel.from_config(config).parameters())
    if count > _MOST:
        raise ValueError(f"{count / 1e6:.0f} million weights: no small model of this type is known here")
    torch.manual_seed(0)
    auto = transformers.AutoModelForImageClassification if kind in _POOLED_BY_CLASSIFIER else transformers.AutoModel
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters() if kind not in _ILL_CONDITIONED else ():
            if value.ndim > 1 or "token" in name:
                value.copy_(
                    torch.randn_like(value) * (0.4 / max(value[0].numel(), 1) ** 0.25 if value.ndim > 1 else 0.2)
                )
    model.save_pretrained(folder)
    _add_processor(
        kind,
        folder,
        getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", None),
    )
    return model


def _add_processor(kind: str, folder: Path, size: Any) -> None:
    mapping = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    names = mapping.get(kind) or mapping.get(kind.removesuffix("_vision_model"))
    names = names.values() if isinstance(names, dict) else names
    name = next((n for n in names or () if n), None)
    edge = size if isinstance(size, int) else (size or [EDGE])[0]
    square = {"height": edge, "width": edge}
    processor = getattr(transformers, name)() if name else transformers.ViTImageProcessor(size=square)
    own = dict(getattr(processor, "size", None) or {})
    if set(own) == {"shortest_edge"}:
        changes = {"size": {"shortest_edge": edge}, "crop_size": square}
    elif "height" in own:
        changes = {"size": square, "crop_size": square}
    else:
        changes = {}
    if getattr(processor, "patch_size", None) and kind.startswith("siglip2"):
        changes["patch_size"] = 8
    (type(processor)(**changes) if changes else processor).save_pretrained(folder)


_RESNET = {"model_type": "resnet", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "embedding_size": 8}
_POOLED_BY_CLASSIFIER = ("data2vec-vision",)
_ILL_CONDITIONED = ("levit",)
"""Types that lose three digits in float32 with weights as large as those drawn here; they keep the library's own."""
_MOST = 40_000_000
_DETECTOR = {"use_timm_backbone": False, "backbone": None, "backbone_config": _RESNET | {"out_features": ["stage4"]}}
_EFFICIENT = {"width_coefficient": 0.3, "depth_coefficient": 0.3, "hidden_dim": 384, "image_size": EDGE}
OVERRIDES: dict[str, dict[str, Any]] = {
    "conditional_detr": _DETECTOR,
    "dab-detr": _DETECTOR,
    "detr": _DETECTOR,
    "table-transformer": _DETECTOR,
    "efficientnet": _EFFICIENT,
    "donut-swin": {"window_size": 2, "image_size": EDGE},
    "maskformer-swin": {"window_size": 2, "image_size": EDGE},
    "swinv2": {"window_size": 2, "image_size": EDGE},
    "swin2sr": {"window_size": 2, "image_size": EDGE},
    "swin": {"window_size": 2, "image_size": EDGE},
    "levit": {"image_size": 224, "patch_size": 16},
    "align": {
        "vision_config": {"width_coefficient": 0.3, "depth_coefficient": 0.3, "hidden_dim": 384, "image_size": EDGE}
    },
    "imagegpt": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "perceiver": {"d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 1, "d_model": 32},
}
