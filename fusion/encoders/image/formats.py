"""Which format a picture is in, recognized by its first bytes."""

import re
from collections.abc import Sequence

from PIL import Image

from barycenter.fusion.errors import BadInputError, Reason

_ICON = b"\0\0\1\0"
_PREFIX = 16
_JPEG_XL_STREAM = b"\xff\x0a"
_JPEG_XL = (_JPEG_XL_STREAM, b"\0\0\0\x0cJXL \r\n\x87\n")
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
_XPM = re.compile(rb"\s*(/\* XPM \*/|! XPM2|#define\s+\w*_format\b)")

_UNMISTAKABLE = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "AVIF", "JPEG2000", "PSD", "QOI", "DDS")
_BITMAP = re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL)
_PORTABLE = re.compile(rb"P[1-6fy]\s")


def candidate_formats(encoded: bytes, formats: Sequence[str]) -> list[str]:
    r"""The formats among ``formats`` that a picture may be in, the likeliest first.

    Those whose first bytes it has come before those that have none of their own (TGA), whatever their order in the job
    file: a TGA begins with any bytes, an icon's among them.

    >>> candidate_formats(b"\0\0\1\0\1\0", ["TGA", "PNG", "ICO"]), candidate_formats(b"\0\0\2\0", ["TGA", "PNG"])
    (['ICO'], ['TGA'])
    """
    Image.init()
    known = [name for name in formats if name in Image.OPEN]
    if is_icon(encoded):
        return [name for name in known if name == "ICO"]
    named = [name for name in known if _begins_like(name, encoded)]
    return named + [name for name in known if Image.OPEN[name][1] is None]


def is_icon(encoded: bytes) -> bool:
    """Whether this is a Windows icon: its first bytes, and at least one picture in its list."""
    return encoded.startswith(_ICON) and encoded[4:6] not in (b"", b"\0", b"\0\0")


def unidentified_error(encoded: bytes, formats: Sequence[str]) -> BadInputError:
    """Why no format of a list reads a picture: another format, a broken header, or no picture at all."""
    named = _unsupported_format(encoded) or next((name for name in Image.ID if _begins_like(name, encoded)), None)
    if named is None:
        return BadInputError(Reason.NOT_AN_IMAGE, f"{len(encoded)} bytes beginning {encoded[:8]!r}")
    if named in formats:
        return BadInputError(Reason.DECODE_ERROR, f"begins like {named} but its header is broken")
    return BadInputError(Reason.FORMAT_NOT_ALLOWED, named)


def _begins_like(name: str, encoded: bytes) -> bool:
    accept = Image.OPEN[name][1]
    return accept is not None and accept(encoded[:_PREFIX]) is True


def _unsupported_format(encoded: bytes) -> str | None:
    """Formats that Pillow does not read, or takes for another of its own."""
    if encoded.startswith(_JPEG_XL):
        return "JPEG XL"
    if _XPM.match(encoded[:256]):
        return "XPM"
    if encoded[4:8] == b"ftyp":
        size = min(int.from_bytes(encoded[:4], "big"), 256)
        brands = {encoded[8:12], *(encoded[start : start + 4] for start in range(16, size, 4))}
        if brands & _HEIF_BRANDS and not brands & {b"avif", b"avis"}:
            return "HEIC"
    return None


def begins_like_picture(encoded: bytes) -> bool:
    r"""Whether bytes begin as those of a common picture format do, by three bytes or more.

    >>> begins_like_picture(b"\xff\xd8\xff\xe0\0\x10JFIF"), begins_like_picture(b"just some text, no picture")
    (True, False)
    """
    Image.init()
    if encoded.startswith(_JPEG_XL_STREAM):
        return False
    if encoded.startswith((b"BM", b"P")):
        return _BITMAP.match(encoded) is not None or _PORTABLE.match(encoded) is not None
    return (
        is_icon(encoded)
        or _unsupported_format(encoded) is not None
        or any(_begins_like(name, encoded) for name in _UNMISTAKABLE)
    )
