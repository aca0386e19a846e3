"""Vision models of transformers: ViT, DINOv2 and their like, and the picture towers of CLIP and SigLIP."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors import safe_open
from torch import nn
from transformers import AutoImageProcessor

from fusion.encoders.base import Description, EncoderSpec
from fusion.encoders.digest import versions
from fusion.encoders.hub import blank_model, load_model, model_digest, model_folder, read_config, told
from fusion.encoders.image import PictureEncoder, Standardise
from fusion.encoders.sentence import read_recipe
from fusion.encoders.transforms import Transform
from fusion.errors import JobError

_AGREEMENT = 0.05
_UNSET = Transform((224, 224), False, (224, 224), 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def _auto_class(config: Any) -> Any:
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith("VisionModelWithProjection"):
        return getattr(transformers, architecture)
    return transformers.AutoModel


class Features(nn.Module):
    """A vision model that returns one vector a picture.

    Towers give their projected embedding. Other models give their pooled output where the checkpoint has all its
    weights, else the first token's last state (CLS), else the mean over the feature map.
    """

    def __init__(self, model: nn.Module, *, trust_pooler: bool) -> None:
        super().__init__()
        self.model = model
        self.trust_pooler = trust_pooler

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, dim)."""
        run: Any = self.model.get_image_features if hasattr(self.model, "get_image_features") else self.model
        output = run(pixel_values=pictures)
        if isinstance(output, torch.Tensor):
            return output
        vector = getattr(output, "image_embeds", None)
        if vector is None and self.trust_pooler:
            vector = getattr(output, "pooler_output", None)
        if vector is None:
            states: torch.Tensor = output.last_hidden_state
            vector = states[:, 0] if states.ndim == 3 else states.mean(dim=(2, 3))
        flat: torch.Tensor = vector.flatten(1)
        return flat


def _checkpoint_keys(folder: Path) -> set[str]:
    """Names of a checkpoint's tensors, read from headers or the index."""
    index = next(iter(sorted(folder.glob("*.index.json"))), None)
    if index is not None:
        return set(json.loads(index.read_text("utf-8"))["weight_map"])
    keys: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            keys |= set(opened.keys())
    for file in sorted(folder.glob("pytorch_model.bin")) if not keys else ():
        keys |= set(torch.load(file, map_location="meta", weights_only=True))
    return keys


def _pooler_is_stored(model: nn.Module, folder: Path) -> bool:
    needed = {name for name, _ in model.named_parameters() if name.startswith("pooler.")}
    stored = _checkpoint_keys(folder) if needed else set()
    return all(any(key.endswith(name) for key in stored) for name in needed)


def read_transform(folder: Path, spec: EncoderSpec) -> Transform:
    """A model's own picture preprocessing, checked against its image processor on one picture.

    Raises:
        JobError: There is none, or it does something this package's transform does not.
    """
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        if spec.preprocessing is not None:
            return _UNSET.overridden(spec.preprocessing)
        raise JobError("preprocessing", f"{spec.encoder} has no preprocessor_config.json; give resize, crop, mean, std")
    with told("preprocessing", f"{spec.encoder} has preprocessing that cannot be read"):
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
        transform = _from_processor(processor)
        theirs = np.asarray(processor(images=_probe(), return_tensors="np")["pixel_values"])[0]
    ours = Standardise(transform)(torch.from_numpy(transform.pixels(_probe())[None]))[0].numpy()
    if spec.preprocessing is None and (ours.shape != theirs.shape or np.abs(ours - theirs).mean() > _AGREEMENT):
        name = type(processor).__name__
        raise JobError(
            "preprocessing", f"{name} does more than resize, crop and normalise; give resize, crop, mean, std"
        )
    return transform.overridden(spec.preprocessing)


def _probe() -> Image.Image:
    """A smooth picture, wider than high, whose colours differ everywhere."""
    y, x = np.mgrid[0:300, 0:400] / 400.0
    waves = np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x + 7 * y)], axis=-1)
    return Image.fromarray((waves * 255).astype(np.uint8))


def _edges(size: Any) -> tuple[int, int, bool]:
    """(height, width, exact) of a processor's size entry."""
    if isinstance(size, int):
        return size, size, True
    entry = {key: value for key, value in dict(size).items() if value is not None}
    if "shortest_edge" in entry and "longest_edge" not in entry:
        return int(entry["shortest_edge"]), int(entry["shortest_edge"]), False
    if "height" in entry and "width" in entry:
        return int(entry["height"]), int(entry["width"]), True
    raise JobError("preprocessing", f"pictures resized to {entry} differ in size; give resize, crop, mean, std")


def _from_processor(processor: Any) -> Transform:
    height, width, exact = _edges(processor.size)
    crop = (height, width)
    if getattr(processor, "crop_pct", None) and not exact and height < 384:
        height = width = int(height / processor.crop_pct)
    elif getattr(processor, "crop_pct", None):
        exact = True
    elif getattr(processor, "do_center_crop", False):
        crop_height, crop_width, _ = _edges(processor.crop_size)
        crop = (crop_height, crop_width)
    elif not exact:
        raise JobError("preprocessing", "pictures keep different shapes; give resize, crop, mean, std")
    normalised = bool(processor.do_normalize)
    mean = tuple(processor.image_mean) if normalised else (0.0, 0.0, 0.0)
    std = tuple(processor.image_std) if normalised else (1.0, 1.0, 1.0)
    return Transform((height, width), exact, crop, int(processor.resample), mean, std)


def describe(spec: EncoderSpec) -> Description:
    """Width and fingerprint of a transformers picture encoder; weights are hashed, not loaded.

    Raises:
        JobError: The folder or hub id cannot be used for pictures.
    """
    whole = model_folder(spec)
    folder = read_recipe(whole).transformer
    config = read_config(folder, spec)
    transform = read_transform(folder, spec)
    model = blank_model(_auto_class(config), config, spec)
    trusted = _pooler_is_stored(model, folder)
    with told("encoder", f"{spec.encoder} does not read pictures"), torch.inference_mode():
        blank = torch.empty(1, 3, *transform.crop, device="meta")
        dim = int(Features(model, trust_pooler=trusted)(blank).shape[1])
    return Description.of(
        dim,
        {
            "kind": "image",
            "model": config.model_type,
            "files": model_digest(whole, spec.trust_remote_code),
            "transform": transform.as_json(),
            "features": "pooled" if trusted else "first token",
            "dtype": spec.dtype,
            "libraries": versions("torch", "transformers", "pillow"),
        },
    )


def load(spec: EncoderSpec, device: str) -> PictureEncoder:
    """A transformers vision model ready to encode.

    Raises:
        JobError: As :func:`describe`, or weights are missing.
    """
    folder = read_recipe(model_folder(spec)).transformer
    config = read_config(folder, spec)
    transform = read_transform(folder, spec)
    model, missing = load_model(_auto_class(config), folder, spec, optional=("pooler.", "position_ids"))
    if hasattr(model, "get_image_features") and hasattr(model, "text_model"):
        del model.text_model
    features = Features(model, trust_pooler=not any("pooler." in key for key in missing))
    with torch.inference_mode():
        probe = torch.zeros(1, 3, *transform.crop, dtype=getattr(torch, spec.dtype))
        dim = int(features.eval()(probe).shape[1])
    return PictureEncoder(features, transform, dim, spec, device)
