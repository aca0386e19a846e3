"""Pictures of more than eight bits a color to eight, by the range that their values fill."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from barycenter.fusion.errors import BadInputError, Reason

_RANGES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
_SCALED = ("PPM", "JPEG2000")
_SWAPPED = {"16B": "16L", "16L": "16B", "16N": "16B"}
_SURELY_FULL = 64


def is_deep_gray(picture: Image.Image) -> bool:
    """Whether a picture is gray with more than eight bits."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def deep_gray_to_rgb(picture: Image.Image) -> Image.Image:
    """A deep gray picture as RGB; a transparent value becomes white.

    Raises:
        BadInputError: All pixels are NaN or infinite.
    """
    values = np.asarray(picture)
    if values.dtype.kind == "f" and not np.isfinite(values).any():
        raise BadInputError(Reason.DECODE_ERROR, "no pixel holds a number")
    gray = to_eight_bits(values, (65535.0,) if picture.format in _SCALED else _RANGES)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        gray = np.where(values == transparent, np.uint8(255), gray)
    return Image.fromarray(gray).convert("RGB")


def to_eight_bits(values: NDArray[Any], ranges: Sequence[float] = _RANGES) -> NDArray[np.uint8]:
    """Scales values by the smallest range that holds them: 0..1 (fractions), 8, 10, 12, 14 or 16 bits.

    Cameras and scanners write 10 or 12 bits into 16 and say so nowhere. Values below 0 or above 65535 are spread from
    the smallest to the largest.

    >>> to_eight_bits(np.array([[0, 65535]], np.uint16)).tolist(), to_eight_bits(np.array([[0, 4095]])).tolist()
    ([[0, 255]], [[0, 255]])
    >>> to_eight_bits(np.array([[0.0, 0.5]], np.float32)).tolist()
    [[0, 128]]
    """
    gray = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(gray.min()), float(gray.max())
    if low < 0 or high > 65535:
        gray = (gray - low) * (255.0 / max(high - low, 1e-12))
    elif values.dtype.kind == "f" and high <= 1:
        gray *= 255.0
    else:
        gray /= next(most for most in ranges if high <= most) / 255.0
    return np.rint(gray).clip(0, 255).astype(np.uint8)


def rescale_sixteen_bits(picture: Image.Image, encoded: bytes, tiles: Sequence[Any]) -> Image.Image:
    """A picture of 16 bits a color, of which Pillow keeps the upper eight, with those that its values fill.

    Args:
        picture: As Pillow decoded it.
        encoded: What it was decoded from.
        tiles: How Pillow was about to decode it (``picture.tile`` before it was loaded).
    """
    if picture.mode not in ("RGB", "RGBA") or not any(_raw_mode(tile)[-3:] in _SWAPPED for tile in tiles):
        return picture
    upper = np.asarray(picture)
    if int(upper[..., :3].max(initial=0)) >= _SURELY_FULL:
        return picture
    with Image.open(io.BytesIO(encoded), formats=[str(picture.format)]) as again:
        again.tile = [_swap_bytes(tile) for tile in again.tile]
        again.load()
        lower = np.asarray(again)
    values = upper[..., :3].astype(np.uint16) * 256 + lower[..., :3]
    scaled = np.concatenate([to_eight_bits(values), upper[..., 3:]], axis=-1)
    brighter = Image.fromarray(np.ascontiguousarray(scaled))
    brighter.info, brighter.format = picture.info, picture.format
    return brighter


def _raw_mode(tile: Any) -> str:
    mode = tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0]
    return mode if isinstance(mode, str) else ""


def _swap_bytes(tile: Any) -> Any:
    """The same tile with the bytes of every color exchanged, so that Pillow keeps the lower one."""
    mode = _raw_mode(tile)
    other = mode[:-3] + _SWAPPED.get(mode[-3:], mode[-3:])
    return tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))
