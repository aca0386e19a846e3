import csv
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from barycenter.fusion.encoders.base import DEFAULT_FORMATS
from barycenter.fusion.encoders.image.decoding import decode
from barycenter.fusion.errors import BadInputError, Reason
from tests.fusion.encoders.conftest import drawn, encoded


def opened(data: object, **options) -> Image.Image:
    return decode(data, **{"formats": DEFAULT_FORMATS, "max_pixels": 50_000_000, **options})


def reason(data: object, **options) -> Reason:
    with pytest.raises(BadInputError) as caught:
        opened(data, **options)
    return caught.value.reason


def claims_to_be(width: int, height: int) -> bytes:
    """A PNG whose header promises more than follows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "format_", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "TGA", "JPEG2000", "ICO", "SGI", "DDS"]
)
def test_formats_decode_to_rgb(format_):
    picture = drawn(64, 64)
    ours = opened(encoded(picture.quantize() if format_ == "GIF" else picture, format_))
    assert (ours.mode, ours.size) == ("RGB", (64, 64))
    assert np.abs(np.asarray(ours, np.float32) - np.asarray(picture, np.float32)).mean() < 12


@pytest.mark.parametrize("turn", range(2, 9))
def test_orientation_is_applied(turn):
    upright = drawn(60, 40)
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[turn]
    stored = upright.transpose(Image.Transpose(inverse))
    exif = Image.Exif()
    exif[0x0112] = turn
    for format_ in ("PNG", "TIFF"):
        assert np.array_equal(opened(encoded(stored, format_, exif=exif)), upright)


def test_transparency_is_composited_on_white():
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    assert opened(encoded(half)).getpixel((0, 0)) == (227, 127, 127)
    assert opened(encoded(Image.new("LA", (4, 4), (0, 0)))).getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    clear = opened(encoded(palette, transparency=0))
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    assert clear.getpixel((1, 0)) == (40, 50, 60)
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    assert opened(encoded(keyed, transparency=(1, 2, 3))).getpixel((2, 2)) == (255, 255, 255)


def test_deep_pictures_keep_their_range():
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    expected = np.rint(ramp / 257).astype(np.uint8)
    for format_ in ("PNG", "TIFF"):
        assert np.array_equal(np.asarray(opened(encoded(Image.fromarray(ramp), format_)))[..., 0], expected)
    floats = Image.fromarray((ramp / 65535).astype(np.float32))
    assert np.array_equal(np.asarray(opened(encoded(floats, "TIFF")))[..., 0], np.rint(ramp / 65535 * 255))
    signed = Image.fromarray(ramp.astype(np.int32) - 40000)
    assert {0, 255} <= set(np.unique(opened(encoded(signed, "TIFF"))).tolist())


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_deep_gray_is_scaled_by_the_bits_it_fills(bits, format_):
    values = (np.linspace(0, 1, 256).reshape(16, 16) * (2**bits - 1)).astype(np.uint16)
    expected = np.rint(values * (255 / (2**bits - 1)))
    for deep in (values, values.astype(np.int32)) if format_ == "TIFF" else (values,):
        assert np.array_equal(np.asarray(opened(encoded(Image.fromarray(deep), format_)))[..., 0], expected)


def test_formats_that_say_their_range_keep_it():
    dark = np.full((4, 4), 4000, np.uint16)
    pgm = b"P5 4 4 65535\n" + dark.astype(">u2").tobytes()
    assert opened(pgm).getpixel((0, 0)) == (16, 16, 16)
    pgm = b"P5 4 4 4095\n" + dark.astype(">u2").tobytes()
    assert opened(pgm).getpixel((0, 0)) == (249, 249, 249)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colors_are_scaled_by_the_bits_they_fill(bits, channels):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**bits, (20, 20, channels)).astype(np.uint16)
    values[..., 3:] = 65535
    values[0, 0, :3] = 2**bits - 1
    ours = np.asarray(opened(deep_png(values)), np.int32)
    expected = values[..., :3] >> 8 if bits == 16 else np.rint(values[..., :3] * (255 / (2**bits - 1)))
    assert np.array_equal(ours, expected)


def test_deep_colors_in_tiff():
    values = np.random.default_rng(0).integers(0, 4096, (6, 5, 3)).astype("<u2")
    values[0, 0] = 4095
    body = values.tobytes()
    tags = [
        (256, 4, 1, 5), (257, 4, 1, 6), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14),
        (277, 3, 1, 3), (278, 4, 1, 6), (279, 4, 1, len(body)), (284, 3, 1, 1),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0" * 4
    tiff = b"II*\0" + struct.pack("<I", 14 + len(body)) + struct.pack("<HHH", 16, 16, 16) + body + directory
    assert np.array_equal(np.asarray(opened(tiff)), np.rint(values * (255 / 4095)))


def deep_png(values):
    """A PNG of 16 bits a color, which Pillow cannot write."""
    height, width, channels = values.shape

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_transparent_sixteen_bit_gray():
    out = io.BytesIO()
    Image.fromarray(np.full((4, 4), 9000, np.uint16)).save(out, "PNG", transparency=9000)
    assert opened(out.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_lab_and_bilevel():
    assert opened(encoded(drawn().convert("CMYK"), "JPEG")).mode == "RGB"
    assert opened(encoded(Image.new("1", (9, 9), 1), "TIFF")).getpixel((0, 0)) == (255, 255, 255)
    lab = Image.new("LAB", (4, 4), (255, 128, 128))
    assert min(opened(encoded(lab, "TIFF")).getpixel((0, 0))) > 245


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for format_ in ("GIF", "WEBP"):
        data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
        red, _, blue = opened(data).getpixel((4, 4))
        assert red > 240 > 20 > blue


def test_what_is_no_picture():
    assert reason(None) == reason(float("nan")) == Reason.NULL
    assert reason(b"") == Reason.EMPTY
    assert reason(b"just text") == reason("a string") == reason(7) == Reason.NOT_AN_IMAGE
    assert reason(b"\x89PNG\r\n\x1a\n" + b"\0" * 40) in (Reason.DECODE_ERROR, Reason.TRUNCATED)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "BMP", "TGA"])
def test_truncated_files_are_reported(format_):
    data = encoded(drawn(300, 300), format_)
    assert reason(data[: len(data) // 2]) in (Reason.TRUNCATED, Reason.DECODE_ERROR)


def test_truncated_jpeg_and_png_have_the_word_for_it():
    for format_ in ("PNG", "JPEG"):
        assert reason(encoded(drawn(300, 300), format_)[:-60]) == Reason.TRUNCATED


def test_formats_outside_the_list_are_not_parsed():
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == Reason.FORMAT_NOT_ALLOWED
    assert reason(encoded(drawn(), "GIF"), formats=("PNG",)) == Reason.FORMAT_NOT_ALLOWED
    assert opened(encoded(drawn(), "PNG"), formats=("PNG", "NO SUCH FORMAT")).mode == "RGB"


@pytest.mark.parametrize("size", [(9000, 9000), (20000, 20000), (2_000_000_000, 2)])
def test_bombs_are_refused_before_decoding(size, recwarn):
    assert reason(claims_to_be(*size)) == Reason.TOO_MANY_PIXELS
    assert not recwarn.list


def test_limit_is_inclusive():
    data = encoded(drawn(50, 20))
    assert opened(data, max_pixels=1000).size == (50, 20)
    assert reason(data, max_pixels=999) == Reason.TOO_MANY_PIXELS


def test_icon_with_a_larger_picture_inside_is_refused():
    png = claims_to_be(9000, 9000)
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png
    assert reason(icon) == Reason.TOO_MANY_PIXELS


def icon(picture, *, padded):
    """An icon whose picture takes so many bytes that one of its sizes, read as a TGA's header, makes sense."""
    png = encoded(picture)
    png += b"\0" * max(padded - len(png), 0)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 64, 64, 0, 0, 1, 32, len(png), 22) + png


@pytest.mark.parametrize("padded", [0, 0x10001, 0x18080, 0x1FFFF, 0x20001])
@pytest.mark.parametrize("formats", [DEFAULT_FORMATS, ("TGA", "ICO"), ("ICO", "TGA"), ("TGA", "CUR", "ICO", "PNG")])
def test_icons_are_not_taken_for_tga(padded, formats):
    picture = drawn(64, 64)
    assert np.array_equal(opened(icon(picture, padded=padded), formats=formats), picture)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "TGA", "ICO", "SGI", "DDS"])
def test_the_order_of_the_formats_does_not_matter(format_):
    picture = drawn(64, 64)
    data = encoded(picture.quantize() if format_ == "GIF" else picture, format_)
    reversed_ = opened(data, formats=DEFAULT_FORMATS[::-1])
    assert np.array_equal(reversed_, opened(data))
    assert np.array_equal(reversed_, opened(data, formats=("TGA", "FLI", format_)))


@pytest.mark.parametrize("kind", ["L", "P", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("packed", [None, "tga_rle"])
def test_every_kind_of_tga_is_read(kind, packed):
    picture = drawn(40, 30).convert(kind)
    data = encoded(picture, "TGA", compression=packed)
    assert np.array_equal(
        opened(data), Image.open(io.BytesIO(data)).convert("RGB") if "A" not in kind else opened(data)
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"/* XPM */\nstatic char *a[] = {", "XPM"),
        (b"! XPM2\n16 7 2 1\n", "XPM"),
        (b"#define a_format 1\n#define a_width 16\n", "XPM"),
        (b"#define a_width 16\n#define a_height 7\n", "XBM"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99, "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\0" * 99, "HEIC"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0hevcmsf1" + b"\0" * 99, "HEIC"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1" + b"\0" * 99, "HEIC"),
        (b"\xff\x0a" + b"\0" * 99, "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 99, "JPEG XL"),
    ],
)
def test_formats_that_are_not_read_are_called_by_their_name(data, name):
    with pytest.raises(BadInputError) as caught:
        opened(data)
    assert (caught.value.reason, caught.value.detail) == (Reason.FORMAT_NOT_ALLOWED, name)


def test_reduced_decode_is_never_smaller_than_asked():
    data = encoded(drawn(1600, 1200), "JPEG", quality=90)
    assert opened(data, target=256).size == (400, 300)
    assert opened(data, target=700).size == (1600, 1200)
    assert opened(encoded(drawn(1600, 1200)), target=256).size == (1600, 1200)


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore")
def test_what_pillow_opens_is_decoded(shared):
    folder = shared / "data/bad_images"
    with (folder / "manifest.tsv").open() as manifest:
        rows = list(csv.DictReader(manifest, delimiter="\t"))
    lost, bad = [], set()
    for row in rows:
        data = (folder / "files" / row["file"]).read_bytes()
        try:
            assert opened(data, target=224).mode == "RGB"
        except BadInputError as error:
            bad.add(error.reason)
            if row["pillow_result"] == "ok":
                lost.append(row["file"])
    assert len(rows) > 150
    assert not lost
    assert bad <= {Reason.TRUNCATED, Reason.DECODE_ERROR, Reason.TOO_MANY_PIXELS, Reason.NOT_AN_IMAGE, Reason.EMPTY}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_without_a_number_is_refused(value):
    with pytest.raises(BadInputError) as error:
        decode(encoded(Image.fromarray(np.full((4, 5), value, np.float32)), "TIFF"), formats=["TIFF"], max_pixels=100)
    assert error.value.reason == Reason.DECODE_ERROR
