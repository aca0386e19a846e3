"""Pictures written into the table as text, distinguished from paths."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from barycenter.fusion.errors import BadInputError, Reason
from barycenter.infra.corpus import Pictures
from barycenter.infra.corpus.pictures.inline import inline_picture

FORMATS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF", "DDS"]
MOST = 1 << 20


def saved(format_: str) -> bytes:
    out = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(values).save(out, format_)
    return out.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
def test_base64_of_every_format_is_read(format_: str, tmp_path: Path) -> None:
    data = saved(format_)
    plain = base64.b64encode(data).decode()
    pictures = Pictures(str(tmp_path))
    written = (
        plain,
        plain.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        base64.encodebytes(data).decode(),
        "  " + plain + "\n",
        str(base64.b64encode(data)),
        f"data:image/x;base64,{plain}",
        f"DATA:;charset=x;BASE64,{plain.replace('+', '%2B')}",
        plain.encode(),
        {"bytes": plain, "path": None},
        {"bytes": None, "path": plain},
    )
    for value in written:
        found = pictures.find(value)
        assert (found.read(), found.uri, found.size) == (data, None, len(data))


def test_a_tga_has_no_first_bytes_and_is_known_by_its_length() -> None:
    data = saved("TGA") * 3
    assert inline_picture(base64.b64encode(data).decode(), MOST) == data


def test_a_data_uri_need_not_be_base64() -> None:
    assert inline_picture("data:image/svg+xml,%3Csvg/%3E", MOST) == b"<svg/>"


@pytest.mark.parametrize(
    ("value", "reason", "words"),
    [
        ("data:image/png", Reason.NOT_AN_IMAGE, "without a comma"),
        ("data:image/png;base64,", Reason.EMPTY, "empty"),
        ("data:,", Reason.EMPTY, "empty"),
        ("data:image/png;base64,iVBOR*w0KGgo", Reason.NOT_AN_IMAGE, "'*' as character 6"),
        (base64.b64encode(saved("PNG")).decode()[:200] + "...", Reason.NOT_AN_IMAGE, "'.' as character 201"),
        (base64.b64encode(saved("PNG") * 900).decode(), Reason.TOO_LARGE, "at most"),
    ],
)
def test_what_cannot_be_decoded_is_named(value: str, reason: Reason, words: str) -> None:
    with pytest.raises(BadInputError) as caught:
        inline_picture(value, MOST)
    assert caught.value.reason == reason
    assert words in caught.value.detail


def test_cut_short_base64_is_a_cut_short_picture() -> None:
    data = saved("PNG")
    text = base64.b64encode(data).decode()
    for length in (401, 402, 403, 404):
        assert inline_picture(text[:length], MOST) == data[: length * 3 // 4]


_NAME = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+", min_size=1, max_size=60)


@given(st.lists(_NAME, min_size=1, max_size=40).map("/".join), st.sampled_from(["", ".jpg", ".png"]))
def test_paths_are_not_taken_for_base64(path: str, ending: str) -> None:
    assert inline_picture(path + ending, MOST) is None
    assert inline_picture("/" + path + ending, MOST) is None
    assert inline_picture("/workspace/" + path + ending, MOST) is None


@pytest.mark.parametrize(
    "path",
    [
        "9j/4AAQSkZJRgABAQEAYABgAAD/a.jpg",
        "iVBORw0KGgo.png",
        "/9j/a.jpg",
        "blobs/" + "0f" * 32,
        "data/a.png",
        "b'x.png'",
        "/workspace/data/pictures/of/products/a.png",
        "/workspace/data/grocery/images/test_Alpro-Blueberry-Soyghurt_001",
    ],
)
def test_paths_that_look_like_it(path: str) -> None:
    assert inline_picture(path, MOST) is None


@given(st.binary(max_size=2000))
def test_anything_else_is_a_path_or_refused(data: bytes) -> None:
    text = data.decode("latin-1")
    try:
        assert inline_picture(text, MOST) is None or text.lstrip()[:5].lower() == "data:"
    except BadInputError:
        assert text.lstrip()[:5].lower() == "data:"
