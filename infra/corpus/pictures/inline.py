"""Decodes pictures that a table holds as text: base64 and data: URIs."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from barycenter.fusion.encoders.image.formats import begins_like_picture
from barycenter.fusion.errors import BadInputError, Reason

MAX_PATH_CHARACTERS = 4096
"""The most characters that a path can have (Linux's PATH_MAX)."""

_HEAD_CHARACTERS = 32
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*")
_WHITESPACE = re.compile(r"\s+")
_BYTES_LITERAL = re.compile(r"""b(['"])(.*)\1""", re.DOTALL)


def inline_picture(text: str, max_bytes: int) -> bytes | None:
    """Decodes a picture given as base64 or data: URI; returns None for other text, such as a path.

    Base64 (its standard and its URL alphabet, padded or not, in lines or not) is distinguished from a path by what it
    decodes to: the first bytes of a picture, or by more characters than a path can have. Pictures of more than
    ``max_bytes`` are rejected before they are decoded.

    Raises:
        BadInputError: not_an_image where a data: URI or base64 cannot be decoded; empty; too_large.

    >>> inline_picture("data:image/gif;base64,R0lGODlh", 99), inline_picture("photos/a.png", 99)
    (b'GIF89a', None)
    """
    start = text[:_HEAD_CHARACTERS].lstrip()
    if start[:5].lower() == "data:":
        return _decode_data_uri(text.strip(), max_bytes)
    if start[:2] in ("b'", 'b"') and (literal := _BYTES_LITERAL.fullmatch(text.strip())):
        text = literal.group(2)
    if not _is_base64_picture(text):
        return None
    return _decode_base64(text, max_bytes, "base64")


def _is_base64_picture(text: str) -> bool:
    """Whether a text is base64 of a picture, by its first bytes, or base64 too long to be a path."""
    head = _WHITESPACE.sub("", text[: 2 * _HEAD_CHARACTERS])[:_HEAD_CHARACTERS]
    if len(head) < _HEAD_CHARACTERS or not _BASE64.fullmatch(head):
        return False
    if begins_like_picture(base64.b64decode(head, altchars=b"-_" if "-" in head or "_" in head else None)):
        return True
    return len(text) > MAX_PATH_CHARACTERS and _BASE64.fullmatch(_WHITESPACE.sub("", text).rstrip("=")) is not None


def _decode_data_uri(text: str, max_bytes: int) -> bytes:
    header, comma, body = text.partition(",")
    if not comma:
        raise BadInputError(Reason.NOT_AN_IMAGE, f"a data: URI without a comma: {text[:60]!r}")
    if header.lower().endswith(";base64"):
        return _decode_base64(unquote_to_bytes(body).decode("latin-1"), max_bytes, "data: URI")
    data = unquote_to_bytes(body)
    if not data:
        raise BadInputError(Reason.EMPTY, "an empty data: URI")
    return data


def _decode_base64(text: str, max_bytes: int, source: str) -> bytes:
    """Decodes base64; ``source`` names it in errors."""
    letters = _WHITESPACE.sub("", text).rstrip("=").translate(str.maketrans("-_", "+/"))
    if not letters:
        raise BadInputError(Reason.EMPTY, f"an empty {source}")
    if len(letters) * 3 // 4 > max_bytes:
        raise BadInputError(
            Reason.TOO_LARGE, f"{source} of {len(letters) * 3 // 4} bytes, at most {max_bytes} are read"
        )
    if (valid := _BASE64.match(letters)) is not None and valid.end() < len(letters):
        place, letter = valid.end(), letters[valid.end()]
        raise BadInputError(Reason.NOT_AN_IMAGE, f"{source} with {letter!r} as character {place + 1}: {text[:40]!r}")
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInputError(Reason.NOT_AN_IMAGE, f"{source}: {error}") from None
