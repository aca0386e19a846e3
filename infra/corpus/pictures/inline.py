"""Pictures written into the table as text: base64 and data: URIs."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from barycenter.fusion.encoders.image.formats import begins_like_picture
from barycenter.fusion.errors import BadInputError, Reason

LONGEST_PATH = 4096
"""Characters that no path has more of."""

_HEAD = 32
_ALPHABET = re.compile(r"[A-Za-z0-9+/_-]*")
_SPACE = re.compile(r"\s+")
_LITERAL = re.compile(r"""b(['"])(.*)\1""", re.DOTALL)


def inline_picture(text: str, max_bytes: int) -> bytes | None:
    """The bytes of a picture that is written out in the text; None where the text is something else, such as a path.

    Base64 (its standard and its URL alphabet, padded or not, in lines or not) is distinguished from a path by what it
    decodes to: the first bytes of a picture, or by more characters than a path can have.

    Args:
        text: The value of an image column.
        max_bytes: Larger pictures are refused before they are decoded.

    Raises:
        BadInputError: not_an_image where a data: URI or base64 cannot be decoded; empty; too_large.

    >>> inline_picture("data:image/gif;base64,R0lGODlh", 99), inline_picture("photos/a.png", 99)
    (b'GIF89a', None)
    """
    start = text[:_HEAD].lstrip()
    if start[:5].lower() == "data:":
        return _of_data_uri(text.strip(), max_bytes)
    if start[:2] in ("b'", 'b"') and (literal := _LITERAL.fullmatch(text.strip())):
        text = literal.group(2)
    if not _is_base64(text):
        return None
    return _decoded(text, max_bytes, "base64")


def _is_base64(text: str) -> bool:
    head = _SPACE.sub("", text[: 2 * _HEAD])[:_HEAD]
    if len(head) < _HEAD or not _ALPHABET.fullmatch(head):
        return False
    if begins_like_picture(base64.b64decode(head, altchars=b"-_" if "-" in head or "_" in head else None)):
        return True
    return len(text) > LONGEST_PATH and _ALPHABET.fullmatch(_SPACE.sub("", text).rstrip("=")) is not None


def _of_data_uri(text: str, max_bytes: int) -> bytes:
    header, comma, body = text.partition(",")
    if not comma:
        raise BadInputError(Reason.NOT_AN_IMAGE, f"a data: URI without a comma: {text[:60]!r}")
    if header.lower().endswith(";base64"):
        return _decoded(unquote_to_bytes(body).decode("latin-1"), max_bytes, "data: URI")
    data = unquote_to_bytes(body)
    if not data:
        raise BadInputError(Reason.EMPTY, "an empty data: URI")
    return data


def _decoded(text: str, max_bytes: int, what: str) -> bytes:
    letters = _SPACE.sub("", text).rstrip("=").translate(str.maketrans("-_", "+/"))
    if not letters:
        raise BadInputError(Reason.EMPTY, f"an empty {what}")
    if len(letters) * 3 // 4 > max_bytes:
        raise BadInputError(Reason.TOO_LARGE, f"{what} of {len(letters) * 3 // 4} bytes, at most {max_bytes} are read")
    if (valid := _ALPHABET.match(letters)) is not None and valid.end() < len(letters):
        place, letter = valid.end(), letters[valid.end()]
        raise BadInputError(Reason.NOT_AN_IMAGE, f"{what} with {letter!r} as character {place + 1}: {text[:40]!r}")
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInputError(Reason.NOT_AN_IMAGE, f"{what}: {error}") from None
