"""Encoded pictures to RGB: only listed formats, size checked before decoding, every oddity named by a fixed word."""

import io
import re
import struct
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.IcoImagePlugin import IcoFile

from barycenter.fusion.encoders.image.bit_depth import deep_gray_to_rgb, is_deep_gray, rescale_sixteen_bits
from barycenter.fusion.encoders.image.formats import candidate_formats, is_icon, unidentified_error
from barycenter.fusion.encoders.row_values import is_null
from barycenter.fusion.errors import BadInputError, Reason

# The limit that counts is max_pixels, checked here before decoding; Pillow's own warning would repeat it for each file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_CUT_SHORT = re.compile(
    r"truncated|not enough|unexpected end|overrun|premature|end of file|eof|buffer is too small", re.I
)
_ORIENTATION = 0x0112
_T = TypeVar("_T")


def decode(data: object, *, formats: Sequence[str], max_pixels: int, target: int | None = None) -> Image.Image:
    """Decodes an encoded picture to upright RGB on white.

    EXIF orientation is applied, transparency composited on white, pixels of more than 8 bits scaled by the range
    (8, 10, 12, 14 or 16 bits) that they fill, and of an animation the first frame is taken.

    Args:
        data: The encoded bytes.
        formats: Pillow's names of the formats that may be decoded.
        max_pixels: Larger pictures are refused before any pixel is decoded.
        target: Shorter edge that will be asked of the picture, pixels. A JPEG that is larger by two or more is
            decoded at a reduced scale (1/2, 1/4 or 1/8 of its discrete cosine blocks), never below ``target``.

    Raises:
        BadInputError: NULL, EMPTY, NOT_AN_IMAGE, FORMAT_NOT_ALLOWED, TOO_MANY_PIXELS, TRUNCATED or DECODE_ERROR.
    """
    encoded = _checked_bytes(data)
    if is_icon(encoded) and "ICO" in formats:
        _check_size(_guarded(lambda: _icon_size(encoded)), max_pixels)
    with _guarded(lambda: _open(encoded, formats)) as picture:
        _check_size(picture.size, max_pixels)
        return _guarded(lambda: _upright_rgb(picture, encoded, target))


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
    try:
        return Image.open(io.BytesIO(encoded), formats=candidate_formats(encoded, formats))
    except UnidentifiedImageError:
        raise unidentified_error(encoded, formats) from None


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


def _upright_rgb(picture: Image.Image, encoded: bytes, target: int | None) -> Image.Image:
    if target is not None:
        picture.draft(None, (target, target))
    tiles = tuple(getattr(picture, "tile", ()))
    picture.load()
    flat = _to_rgb(rescale_sixteen_bits(picture, encoded, tiles))
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
    if is_deep_gray(picture):
        return deep_gray_to_rgb(picture)
    if picture.mode == "LAB":
        return _lab_to_rgb(picture)
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    with_alpha = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    flat = Image.new("RGB", with_alpha.size, (255, 255, 255))
    flat.paste(with_alpha, mask=with_alpha)
    return flat


def _lab_to_rgb(picture: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.applyTransform(picture, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
    if converted is None:
        raise ValueError("the LAB picture could not be converted")
    return converted
