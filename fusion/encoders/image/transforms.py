"""The one way pictures become model input: resize and cut the center, as each model's weights ask."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from barycenter.fusion.encoders.base import JSON, Preprocessing

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]

_REDUCING_GAP = 3.0


@dataclass(frozen=True, slots=True)
class Transform:
    """Picture preprocessing.

    Attributes:
        resize: (height, width) when ``exact``, else (shorter edge, shorter edge).
        exact: Whether the aspect ratio is given up.
        crop: (height, width) cut from the center; also the model's input size.
        resample: Pillow's number of the filter (2 bilinear, 3 bicubic).
        mean: Subtracted from values in 0..1, per channel.
        std: Divides after that, per channel.
        floor: Whether an odd margin is halved downwards, as transformers cut; torchvision rounds to the even number.
    """

    resize: tuple[int, int]
    exact: bool
    crop: tuple[int, int]
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    floor: bool = False

    @property
    def target(self) -> int | None:
        """Shorter edge below which a reduced decode would lose what the model sees; None: any reduction would."""
        return max(*self.resize, *self.crop) if self.exact else self.resize[0]

    def with_overrides(self, preprocessing: Preprocessing | None) -> "Transform":
        """This transform with the job file's sizes and statistics; the filter stays the model's own."""
        if preprocessing is None:
            return self
        edge, cut = preprocessing.resize, preprocessing.crop
        mean, std = tuple(preprocessing.mean), tuple(preprocessing.std)
        return replace(self, resize=(edge, edge), exact=False, crop=(cut, cut), mean=mean, std=std)

    def as_json(self) -> dict[str, JSON]:
        """The settings that the pixels depend on, as JSON for the encoder's fingerprint."""
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if not self.floor:
            del given["floor"]
        return given

    def pixels(self, picture: Image.Image) -> Pixels:
        """Resizes an RGB picture and cuts its center.

        Sizes are rounded as torchvision's ``Resize`` rounds them, offsets as its ``CenterCrop`` or (``floor``) as
        transformers' processors; where the cut is larger than the resized picture, black fills the rest.

        Returns:
            (height, width, 3) uint8.
        """
        height, width = self._size(picture.height, picture.width)
        crop_height, crop_width = self.crop
        top, left = _offset(height, crop_height, self.floor), _offset(width, crop_width, self.floor)
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + crop_height, height), min(left + crop_width, width)
        values = self._resized(picture, (height, width), (y0, x0, y1, x1))
        if values.shape[:2] != self.crop:
            canvas = np.zeros((*self.crop, 3), np.uint8)
            canvas[y0 - top : y0 - top + values.shape[0], x0 - left : x0 - left + values.shape[1]] = values
            values = canvas
        return values

    def _resized(
        self, picture: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
    ) -> NDArray[np.uint8]:
        """The part within a box (top, left, bottom, right) of the picture at a size (height, width).

        Pillow makes it in one pass over the part that is kept.
        """
        sy, sx = picture.height / size[0], picture.width / size[1]
        top, left, bottom, right = box
        resized = picture.resize(
            (right - left, bottom - top),
            Image.Resampling(self.resample),
            box=(left * sx, top * sy, min(right * sx, picture.width), min(bottom * sy, picture.height)),
            reducing_gap=_REDUCING_GAP,
        )
        return np.array(resized, dtype=np.uint8)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if self.exact:
            return self.resize
        edge = self.resize[0]
        if height <= width:
            return edge, max(int(edge * width / height), 1)
        return max(int(edge * height / width), 1), edge


@dataclass(frozen=True, slots=True)
class ProcessorTransform(Transform):
    """Base of what hands each picture, whole, to a model's own image processor, which standardizes it."""

    processor: Any = None

    @classmethod
    def of_size(cls, processor: Any, size: tuple[int, int]) -> Self:
        """Of a processor that gives (height, width) pixels."""
        return cls(size, True, size, 3, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), processor=processor)

    @property
    def target(self) -> int | None:
        """None: the processor is handed every pixel."""
        return None

    def as_json(self) -> dict[str, JSON]:
        """The processor's name and sizes; its settings are among the model's files."""
        return {"processor": type(self.processor).__name__, "crop": list(self.crop)}


def _offset(size: int, crop: int, floor: bool = False) -> int:
    """Where a center cut begins; negative where black is put before the picture.

    >>> _offset(256, 224), _offset(20, 23), _offset(51, 32), _offset(51, 32, floor=True)
    (16, -1, 10, 9)
    """
    if size < crop:
        return -((crop - size) // 2)
    return (size - crop) // 2 if floor else round((size - crop) / 2)
