"""Vision models of transformers: ViT, DINOv2 and their like, and the picture towers of CLIP and SigLIP."""

import inspect
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import nn

from barycenter.fusion.encoders import hub
from barycenter.fusion.encoders.base import Description, EncoderSpec
from barycenter.fusion.encoders.batch_check import check_independence
from barycenter.fusion.encoders.image.encoder import ImageEncoder, sample_inputs
from barycenter.fusion.encoders.image.patches import PatchTransform
from barycenter.fusion.encoders.image.preprocessing import read_transform
from barycenter.fusion.encoders.image.transforms import Transform
from barycenter.fusion.encoders.image.vision_output import VisionModel, VisionModelWithModules, reads_patches
from barycenter.fusion.encoders.sentence_config import SentenceConfig, read_json, read_sentence_config
from barycenter.fusion.encoders.sentence_modules import load_modules
from barycenter.fusion.errors import JobError

_POOLER = "pooler."


def _auto_class(config: Any) -> Any:
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith("VisionModelWithProjection"):
        return getattr(transformers, architecture, transformers.AutoModel)
    return transformers.AutoModel


def _checkpoint_keys(folder: Path) -> set[str]:
    """Names of a checkpoint's tensors, read from headers or the index."""
    index = next(iter(sorted(folder.glob("*.index.json"))), None)
    if index is not None:
        return set(json.loads(index.read_text("utf-8"))["weight_map"])
    keys: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            keys |= set(opened.keys())
    pickled = folder / "pytorch_model.bin"
    return set(torch.load(pickled, map_location="meta", weights_only=True)) if not keys and pickled.exists() else keys


def _pooler_is_stored(model: nn.Module, folder: Path) -> bool:
    needed = {name for name, _ in model.named_parameters() if name.startswith(_POOLER)}
    stored = _checkpoint_keys(folder) if needed else set()
    return all(any(key.endswith(name) for key in stored) for name in needed)


def _pooling_layer(folder: Path, auto: Any, config: Any) -> dict[str, Any]:
    """``{"add_pooling_layer": True}`` if the class leaves it out by default and the checkpoint has it, else {}."""
    kind = transformers.MODEL_MAPPING.get(type(config), None) if auto is transformers.AutoModel else auto
    option = inspect.signature(kind.__init__).parameters.get("add_pooling_layer") if inspect.isclass(kind) else None
    if option is None or option.default is not False:
        return {}
    stored = any(f".{_POOLER}" in f".{key}" for key in _checkpoint_keys(folder))
    return {"add_pooling_layer": True} if stored else {}


def _dry_run(
    folder: Path, config: Any, spec: EncoderSpec, transform: Transform, settings: SentenceConfig
) -> tuple[int, str]:
    """Width of a model's vectors and which part of its output they are, by a run without weights.

    A model that cannot run on the meta device runs on the CPU with weights drawn at random.
    """
    auto, size = _auto_class(config), transform.crop
    layer = _pooling_layer(folder, auto, config)
    model = hub.model_without_weights(auto, config, spec, **layer)
    if reads_patches(model) != isinstance(transform, PatchTransform):
        reads = "patches" if reads_patches(model) else "whole pictures"
        raise JobError(
            "encoder",
            f"{spec.encoder} reads {reads}, and its image processor gives something else; take another encoder",
        )
    trusted = _pooler_is_stored(model, folder)
    try:
        return _output_width(model, trusted, torch.empty(1, 3, *size, device="meta"), settings)
    except JobError:
        raise
    except Exception:  # noqa: BLE001 - whatever a model's code raises where tensors have no values
        with hub.encoder_errors("encoder", f"{spec.encoder} does not read pictures of {size[0]}x{size[1]}"):
            model = hub.model_without_weights(auto, config, spec, device="cpu", **layer)
            return _output_width(model, trusted, torch.zeros(1, 3, *size), settings)


@torch.inference_mode()
def _output_width(model: nn.Module, trusted: bool, blank: torch.Tensor, settings: SentenceConfig) -> tuple[int, str]:
    features = VisionModel(model, trust_pooler=trusted)
    if not settings.pooling_modes:
        width = int(features(blank).shape[1])
        return int(load_modules(settings)(torch.zeros(1, width)).shape[1]), features.used_output
    network = VisionModelWithModules(features, settings).to(blank.device)
    return int(network(blank).shape[1]), features.used_output


def describe(spec: EncoderSpec) -> Description:
    """Width and fingerprint of a transformers picture encoder; weights are hashed, not loaded.

    Where it must be reproducible, it is loaded to see whether it is.

    Raises:
        JobError: The folder or hub id cannot be used for pictures, or as is asked.
    """
    whole = hub.model_folder(spec)
    settings = _read_sentence_config(whole, spec)
    config = hub.read_config(settings.transformer, spec)
    transform = read_transform(settings.transformer, spec)
    if spec.reproducible:
        load(spec, "cpu")
    width, used_output = _dry_run(settings.transformer, config, spec, transform, settings)
    return Description.of(
        width,
        {
            "kind": "image",
            "model": config.model_type,
            "files": hub.model_digest(whole, spec.trust_remote_code),
            "transform": transform.as_json(),
            "features": used_output,
            "then": [kind for kind, _ in settings.steps],
            "dtype": spec.dtype,
            "engine": spec.engine,
            **({} if spec.reproducible is None else {"reproducible": spec.reproducible}),
        },
    )


def _read_sentence_config(whole: Path, spec: EncoderSpec) -> SentenceConfig:
    with hub.encoder_errors("encoder", f"{spec.encoder} has settings that cannot be read"):
        settings = read_sentence_config(whole)
        config = next((c for c in map(read_json, sorted(settings.transformer.glob("sentence_*_config.json"))) if c), {})
    modalities = config.get("modality_config", {"image": {}})
    if "image" not in modalities:
        raise JobError(
            "encoder",
            f"{spec.encoder} reads no pictures, only {', '.join(modalities)} (modality_config); take another encoder",
        )
    entry = modalities["image"]
    asked = (entry.get("method", "get_image_features"), entry.get("method_output_name") or "pooler_output")
    known = ("forward", "last_hidden_state") if settings.pooling_modes else ("get_image_features", "pooler_output")
    if asked not in (known, ("get_image_features", "pooler_output")):
        raise JobError(
            "encoder",
            f"{spec.encoder} takes {asked[1]} of {asked[0]} for pictures, which is not supported; take another encoder",
        )
    return settings


def load(spec: EncoderSpec, device: str) -> ImageEncoder:
    """A transformers vision model ready to encode.

    Raises:
        JobError: As :func:`describe`, weights are missing, or a picture's vector depends on more than the picture.
    """
    settings = _read_sentence_config(hub.model_folder(spec), spec)
    config = hub.read_config(settings.transformer, spec)
    transform = read_transform(settings.transformer, spec)
    auto = _auto_class(config)
    layer = _pooling_layer(settings.transformer, auto, config)
    model, missing = hub.load_model(auto, settings.transformer, spec, (_POOLER, "position_ids"), **layer)
    if hasattr(model, "get_image_features") and hasattr(model, "text_model"):
        del model.text_model
    trusted = not any(key.startswith(_POOLER) for key in missing)
    features = VisionModel(model, trust_pooler=trusted)
    _refuse_missing(features, missing, transform.crop, spec)
    plain = not settings.steps and settings.truncate_dim is None
    network = features if plain else VisionModelWithModules(features, settings)
    with torch.inference_mode():
        probe = torch.zeros(1, 3, *transform.crop, dtype=getattr(torch, spec.dtype))
        dim = int(network.eval().to(probe.dtype)(probe).shape[1])
    encoder = ImageEncoder(network, transform, dim, spec, device)
    if spec.dtype == "float32":
        check_independence(encoder, sample_inputs(transform.crop), str(spec.encoder))
    return encoder.make_reproducible(spec)


@torch.inference_mode()
def _refuse_missing(features: VisionModel, missing: set[str], size: tuple[int, int], spec: EncoderSpec) -> None:
    """Weights that were not in the folder, and were drawn at random, must not reach the vectors."""
    drawn = {key: value for key, value in features.model.named_parameters() if key in missing}
    if not drawn:
        return
    kept = {key: value.clone() for key, value in drawn.items()}
    for value in drawn.values():
        value.fill_(float("nan"))
    vector = features.eval()(torch.zeros(1, 3, *size, dtype=getattr(torch, spec.dtype)))
    for key, value in drawn.items():
        value.copy_(kept[key])
    if not bool(torch.isfinite(vector).all()):
        raise JobError(
            "encoder",
            f"{spec.encoder} lacks weights its config.json asks for: {sorted(drawn)[0]}; download the model again",
        )
