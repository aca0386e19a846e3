"""The picture preprocessing of a transformers model: as this package's own transform where both agree, else its own."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2.functional import InterpolationMode, resize
from transformers import AutoImageProcessor

from barycenter.fusion.encoders.base import JSON, EncoderSpec
from barycenter.fusion.encoders.hub import encoder_errors
from barycenter.fusion.encoders.image.encoder import Standardize
from barycenter.fusion.encoders.image.patches import PatchTransform
from barycenter.fusion.encoders.image.transforms import Pixels, ProcessorTransform, Transform
from barycenter.fusion.errors import JobError

_AGREEMENT = 1e-4
"""Largest difference of a standardized value."""

_INTERPOLATION = {
    0: InterpolationMode.NEAREST_EXACT,
    1: InterpolationMode.LANCZOS,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}
_UNSET = Transform((224, 224), False, (224, 224), 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_ADVICE = "give preprocessing: {resize, crop, mean, std}"


@dataclass(frozen=True, slots=True)
class TensorTransform(Transform):
    """Resizes as torchvision resizes tensors, as transformers' processors do: Pillow rounds otherwise."""

    def as_json(self) -> dict[str, JSON]:
        """As of any transform, and that tensors are resized."""
        return Transform.as_json(self) | {"resized": "tensor"}

    def _resized(
        self, picture: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
    ) -> NDArray[np.uint8]:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        if pixels.shape[1:] != size:
            pixels = resize(pixels, list(size), _INTERPOLATION[self.resample], antialias=True)
        top, left, bottom, right = box
        return np.ascontiguousarray(pixels[:, top:bottom, left:right].permute(1, 2, 0).numpy())


@dataclass(frozen=True, slots=True)
class LibraryTransform(ProcessorTransform):
    """The model's own image processor, run on one picture at a time, for what :class:`Transform` cannot express."""

    def pixels(self, picture: Image.Image) -> Pixels:
        """(height, width, 3) float32, standardized."""
        return np.ascontiguousarray(_processed(self.processor, picture).transpose(1, 2, 0))


def read_transform(folder: Path, spec: EncoderSpec) -> Transform:
    """A model's own picture preprocessing, checked against its image processor on pictures of several shapes.

    Raises:
        JobError: There is none, or it gives pictures of different sizes.
    """
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        if spec.preprocessing is not None:
            return _UNSET.with_overrides(spec.preprocessing)
        raise JobError("preprocessing", f"{spec.encoder} has no preprocessor_config.json; give resize, crop, mean, std")
    with encoder_errors("preprocessing", f"{spec.encoder} has preprocessing that cannot be read"):
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=spec.trust_remote_code)
    if hasattr(processor, "max_num_patches"):
        return _patches(processor, spec)
    transform = _from_processor(processor)
    if spec.preprocessing is not None:
        return (transform or _UNSET).with_overrides(spec.preprocessing)
    with encoder_errors("preprocessing", f"{spec.encoder} has preprocessing that cannot be run; {_ADVICE}"):
        theirs = [_processed(processor, picture) for picture in _sample_pictures()]
    for ours in (TensorTransform, Transform):
        same = transform and ours(**{field.name: getattr(transform, field.name) for field in fields(transform)})
        if same and all(
            _agree(same, picture, values) for picture, values in zip(_sample_pictures(), theirs, strict=True)
        ):
            return same
    if len({values.shape for values in theirs}) > 1:
        name = type(processor).__name__
        raise JobError("preprocessing", f"{name} leaves pictures in different sizes; {_ADVICE}")
    return LibraryTransform.of_size(processor, theirs[0].shape[1:])


def _patches(processor: Any, spec: EncoderSpec) -> Transform:
    """Of a processor that keeps the aspect ratio and cuts pictures into patches."""
    name = type(processor).__name__
    if spec.preprocessing is not None:
        raise JobError(
            "preprocessing", f"{name} keeps a picture's aspect ratio, which no resize and crop can; leave it out"
        )
    with encoder_errors("preprocessing", f"{spec.encoder} has preprocessing that cannot be run"):
        made = processor(images=_sample_pictures()[0], return_tensors="np")
        shapes = np.asarray(made["spatial_shapes"]).shape
        if np.ndim(made["pixel_values"]) != 3 or shapes != (1, 2):
            raise JobError("encoder", f"{name} cuts a picture into several; take another encoder")
        return PatchTransform.of_sample(processor, _sample_pictures()[0])


def _processed(processor: Any, picture: Image.Image) -> NDArray[np.float32]:
    """(3, h, w) float32 that an image processor makes of one picture."""
    values: NDArray[Any] = np.asarray(processor(images=picture, return_tensors="np")["pixel_values"])
    if values.ndim != 4 or values.shape[:2] != (1, 3):
        name, shape = type(processor).__name__, "x".join(map(str, values.shape))
        raise JobError("preprocessing", f"{name} makes {shape} values of a picture, not three colors; {_ADVICE}")
    return np.asarray(values[0], np.float32)


def _agree(transform: Transform, picture: Image.Image, theirs: NDArray[np.float32]) -> bool:
    ours = Standardize(transform)(torch.from_numpy(transform.pixels(picture)[None]))[0].numpy()
    return ours.shape == theirs.shape and float(np.abs(ours - theirs).max()) <= _AGREEMENT


@cache
def _sample_pictures() -> tuple[Image.Image, ...]:
    """A smooth picture, wider than high, whose colors differ everywhere; noise: high, of odd edges, and small."""
    y, x = np.mgrid[0:300, 0:400] / 400.0
    waves = np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x + 7 * y)], axis=-1)
    noise = np.random.default_rng(0).integers(0, 256, (501, 333, 3), np.uint8)
    return tuple(map(Image.fromarray, ((waves * 255).astype(np.uint8), noise, noise[:29, :41])))


def _edges(size: Any) -> tuple[int, int, bool] | None:
    """(height, width, exact) of a processor's size entry; None where pictures keep different sizes."""
    if isinstance(size, int):
        return size, size, True
    entry = {key: value for key, value in dict(size or {}).items() if value is not None}
    if "shortest_edge" in entry and "longest_edge" not in entry:
        return int(entry["shortest_edge"]), int(entry["shortest_edge"]), False
    if "height" in entry and "width" in entry:
        return int(entry["height"]), int(entry["width"]), True
    return None


def _from_processor(processor: Any) -> Transform | None:
    """What a processor's settings say, as far as a :class:`Transform` can say it."""
    edges = _edges(getattr(processor, "size", None))
    if edges is None or not getattr(processor, "do_resize", True):
        return None
    height, width, exact = edges
    crop = (height, width)
    if getattr(processor, "crop_pct", None) and not exact and height < 384:
        height = width = int(height / processor.crop_pct)
    elif getattr(processor, "crop_pct", None):
        exact = True
    elif getattr(processor, "do_center_crop", False):
        cut = _edges(processor.crop_size)
        if cut is None:
            return None
        crop = cut[:2]
    elif not exact:
        return None
    normalized = bool(getattr(processor, "do_normalize", False))
    mean = tuple(processor.image_mean) if normalized else (0.0, 0.0, 0.0)
    std = tuple(processor.image_std) if normalized else (1.0, 1.0, 1.0)
    resample = getattr(processor, "resample", None)
    return Transform((height, width), exact, crop, 2 if resample is None else int(resample), mean, std, floor=True)
