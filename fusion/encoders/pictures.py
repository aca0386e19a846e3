"""Encoded pictures to RGB: only listed formats, size checked before decoding, every oddity told by a fixed word."""

import io
import re
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.IcoImagePlugin import IcoFile

from fusion.encoders.values import is_null
from fusion.errors import BadInputError, Reason

# The limit that counts is max_pixels, checked here before decoding; Pillow's own warning would repeat it for each file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_CUT_SHORT = re.compile(
    r"truncated|not enough|unexpected end|overrun|premature|end of file|eof|buffer is too small", re.I
)
_ORIENTATION = 0x0112
_ICON = b"\0\0\1\0"
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_T = TypeVar("_T")


def decode(data: object, *, formats: Sequence[str], max_pixels: int, target: int | None = None) -> Image.Image:
    """Decodes an encoded picture to upright RGB on white.

    EXIF orientation is applied, transparency composited on white, deeper pixels brought to 8 bits, and of an
    animation the first frame is taken.

    Args:
        data: The encoded bytes.
        formats: Pillow's names of the formats that may be decoded.
        max_pixels: Larger pictures are refused before any pixel is decoded.
        target: Shorter edge that will be asked of the picture, pixels. A JPEG that is larger by two or more is
            decoded at a reduced scale (1/2, 1/4 or 1/8 of its discrete cosine blocks).

    Returns:
        An RGB picture, no smaller than ``target`` unless the file is.

    Raises:
        BadInputError: NULL, EMPTY, NOT_AN_IMAGE, FORMAT_NOT_ALLOWED, TOO_MANY_PIXELS, TRUNCATED or DECODE_ERROR.
    """
    encoded = _checked_bytes(data)
    if encoded.startswith(_ICON):
        _check_size(_guarded(lambda: _icon_size(encoded)), max_pixels)
    with _guarded(lambda: _open(encoded, formats)) as picture:
        _check_size(picture.size, max_pixels)
        return _guarded(lambda: _upright_rgb(picture, target))


def _checked_bytes(data: object) -> bytes:
    if is_null(data):
        raise BadInputError(Reason.NULL)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BadInputError(Reason.NOT_AN_IMAGE, f"{type(data).__name__} instead of encoded bytes")
    encoded = bytes(data)
    if not encoded:
        raise BadInputError(Reason.EMPTY, "zero bytes")
    return encoded


def _guarded(step: Callable[[], _T]) -> _T:
    """Runs one of Pillow's steps and names what it raises.

    The bytes are in memory and Pillow's parsers raise nearly anything on hostile ones (struct.error, KeyError,
    ZeroDivisionError, ...): whatever comes up is the file's fault.
    """
    try:
        return step()
    except BadInputError:
        raise
    except Image.DecompressionBombError as error:
        raise BadInputError(Reason.TOO_MANY_PIXELS, str(error)) from None
    except Exception as error:  # noqa: BLE001
        detail = f"{type(error).__name__}: {error}"
        cut_short = isinstance(error, EOFError) or _CUT_SHORT.search(str(error))
        raise BadInputError(Reason.TRUNCATED if cut_short else Reason.DECODE_ERROR, detail) from None


def _open(encoded: bytes, formats: Sequence[str]) -> Image.Image:
    Image.init()
    known = [name for name in formats if name in Image.OPEN]
    try:
        return Image.open(io.BytesIO(encoded), formats=known)
    except UnidentifiedImageError:
        raise _unidentified(encoded, known) from None


def _unidentified(encoded: bytes, formats: Sequence[str]) -> BadInputError:
    """Tells a format that is not on the list (by its first bytes only; nothing of it is parsed) from no picture."""
    prefix = encoded[:16]
    if (name := _foreign(prefix)) is not None:
        return BadInputError(Reason.FORMAT_NOT_ALLOWED, f"{name} cannot be decoded; convert it to JPEG or PNG")
    for name in Image.ID:
        accept = Image.OPEN[name][1]
        if accept is None or accept(prefix) is not True:
            continue
        if name in formats:
            return BadInputError(Reason.DECODE_ERROR, f"begins like {name} but its header is broken")
        return BadInputError(Reason.FORMAT_NOT_ALLOWED, name)
    return BadInputError(Reason.NOT_AN_IMAGE, f"{len(encoded)} bytes beginning {prefix[:8]!r}")


def _foreign(prefix: bytes) -> str | None:
    """The name of a picture format that Pillow has no reader for."""
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIC:
        return "HEIC"
    return "JPEG XL" if prefix.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")) else None


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadInputError(Reason.TOO_MANY_PIXELS, f"{width}x{height} is over {max_pixels}")


def _icon_size(encoded: bytes) -> tuple[int, int]:
    """Size of the picture that Pillow takes out of an icon: it decodes it on opening, before anyone can look."""
    start = IcoFile(io.BytesIO(encoded)).entry[0].offset
    if encoded[start : start + 4] == b"\x89PNG":
        width, height = struct.unpack_from(">II", encoded, start + 16)
        return width, height
    width, height = struct.unpack_from("<ii", encoded, start + 4)
    return abs(width), abs(height) // 2


def _upright_rgb(picture: Image.Image, target: int | None) -> Image.Image:
    if target is not None:
        picture.draft(None, (target, target))
    picture.load()
    flat = _to_rgb(picture)
    turn = _orientation(picture)
    return flat if turn is None else flat.transpose(turn)


def _orientation(picture: Image.Image) -> Image.Transpose | None:
    """The transposition EXIF asks for; metadata that cannot be read asks for none."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001
        return None
    return {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(value)


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "I" or picture.mode == "F" or picture.mode.startswith("I;16"):
        return _deep_to_rgb(picture)
    if picture.mode == "LAB":
        return _lab_to_rgb(picture)
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    with_alpha = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    flat = Image.new("RGB", with_alpha.size, (255, 255, 255))
    flat.paste(with_alpha, mask=with_alpha)
    return flat


def _deep_to_rgb(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture)
    grey = _to_eight_bits(values, always_sixteen=picture.mode.startswith("I;16"))
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _to_eight_bits(values: NDArray[Any], *, always_sixteen: bool) -> NDArray[np.uint8]:
    """Scales grey values by the smallest range among 0..1 (floats), 0..255 and 0..65535 that holds them.

    >>> _to_eight_bits(np.array([[0, 65535]], np.uint16), always_sixteen=True).tolist()
    [[0, 255]]
    >>> _to_eight_bits(np.array([[0.0, 0.5]], np.float32), always_sixteen=False).tolist()
    [[0, 128]]
    """
    grey = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if always_sixteen or (low >= 0 and 255 < high <= 65535):
        grey /= 257.0
    elif values.dtype.kind == "f" and low >= 0 and high <= 1:
        grey *= 255.0
    elif low < 0 or high > 65535:
        grey = (grey - low) * (255.0 / max(high - low, 1e-12))
    return np.rint(grey).clip(0, 255).astype(np.uint8)


def _lab_to_rgb(picture: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(picture, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    if converted is None:
        raise ValueError("the LAB picture could not be converted")
    return converted
