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
_NARROW = {"hidden_size", "d_model", "embed_dim", "embed_dims", "encoder_hidden_size", "decoder_hidden_size"}
_WIDE = {"intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "mlp_dim", "ffn_dim", "decoder_intermediate_size"}
_LAYERS = {"num_hidden_layers", "encoder_layers", "decoder_layers", "decoder_num_hidden_layers", "num_layers"}
_HEADS = {"num_attention_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"}
_PROJECTED = {"projection_dim"}


def architectures() -> list[str]:
    """Model types with a picture encoder that ``AutoModel`` loads."""
    found = {kind for name in _MAPPINGS for kind in getattr(modeling_auto, name)}
    found |= {kind for kind in modeling_auto.MODEL_MAPPING_NAMES if kind.endswith("_vision_model")}
    return sorted(found & set(modeling_auto.MODEL_MAPPING_NAMES))


def _shrunk(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a configuration made small, by what they are called."""
    small: dict[str, Any] = {}
    for key, value in values.items():
        if key == "image_size" and value:
            small[key] = EDGE if isinstance(value, int) else [EDGE] * len(value)
        elif isinstance(value, dict) and key.endswith("_config") and value.get("model_type"):
            small[key] = {"model_type": value["model_type"], **_shrunk(value)}
        elif isinstance(value, bool) or not isinstance(value, int | list):
            continue
        elif key == "depths" and isinstance(value, list):
            small[key] = [1] * len(value)
        elif isinstance(value, int) and key in _NARROW and not isinstance(values.get("num_heads"), list):
            small[key] = 32
        elif isinstance(value, int) and key in _WIDE:
            small[key] = 48
        elif isinstance(value, int) and key in _LAYERS:
            small[key] = min(value, 2)
        elif isinstance(value, int) and key in _HEADS:
            small[key] = 4
        elif key in _PROJECTED and isinstance(value, int):
            small[key] = 24
        elif key == "vocab_size":
            small[key] = 99
        elif key.endswith("_token_id") and isinstance(value, int) and value >= 99 and "vocab_size" in values:
            small[key] = 1
        elif key == "patch_size" and isinstance(value, int) and value > 8:
            small[key] = 8
    return small


def build(kind: str, folder: Path) -> Any:
    """Saves a small random model of a type in ``folder``; returns it.

    Raises:
        Exception: Whatever its configuration or model raises.
    """
    values = CONFIG_MAPPING[kind]().to_dict()
    config = CONFIG_MAPPING[kind](**(_shrunk(values) | OVERRIDES.get(kind, {})))
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
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
    names = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(kind)
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
    (type(processor)(**changes) if changes else processor).save_pretrained(folder)


_RESNET = {"model_type": "resnet", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16], "embedding_size": 8}
_DETECTOR = {"use_timm_backbone": False, "backbone": None, "backbone_config": _RESNET | {"out_features": ["stage4"]}}
OVERRIDES: dict[str, dict[str, Any]] = {
    "conditional_detr": _DETECTOR,
    "dab-detr": _DETECTOR,
    "detr": _DETECTOR,
    "table-transformer": _DETECTOR,
    "efficientnet": {"width_coefficient": 0.3, "depth_coefficient": 0.3, "hidden_dim": 384, "image_size": EDGE},
    "imagegpt": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "perceiver": {"d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 1, "d_model": 32},
}
