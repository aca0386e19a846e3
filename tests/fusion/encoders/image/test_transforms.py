import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from barycenter.fusion.encoders.base import EncoderSpec, Preprocessing
from barycenter.fusion.encoders.image.encoder import Standardize
from barycenter.fusion.encoders.image.preprocessing import read_transform
from barycenter.fusion.encoders.image.transforms import Transform
from tests.fusion.encoders.conftest import drawn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(20, 700), height=st.integers(20, 700), resize=st.integers(20, 300), crop=st.integers(20, 300),
    bicubic=st.booleans(),
)  # fmt: skip
@example(width=182, height=182, resize=20, crop=20, bicubic=False)
def test_equals_torchvision(width, height, resize, crop, bicubic):
    picture = drawn(width, height)
    mode = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    theirs = ImageClassification(crop_size=crop, resize_size=resize, interpolation=mode)(picture)
    ours = Transform((resize, resize), False, (crop, crop), 3 if bicubic else 2, MEAN, STD)
    pixels = ours.pixels(picture)
    assert pixels.dtype == np.uint8
    relative_difference = (Standardize(ours)(torch.from_numpy(pixels[None]))[0] - theirs).abs()
    assert relative_difference.max() < 3 / 255 / 0.22
    assert relative_difference.mean() < (0.3 if resize >= 32 else 0.4) / 255 / 0.22


def test_exact_gives_up_the_aspect():
    pixels = Transform((40, 30), True, (40, 30), 2, MEAN, STD).pixels(drawn(300, 100))
    theirs = np.asarray(drawn(300, 100).resize((30, 40), Image.Resampling.BILINEAR, reducing_gap=3.0))
    assert np.array_equal(pixels, theirs)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 2)])
def test_slivers_fill_the_whole_input(size):
    assert Transform((64, 64), False, (56, 56), 2, MEAN, STD).pixels(drawn(*size)).shape == (56, 56, 3)


def test_override_keeps_the_filter():
    base = Transform((40, 40), True, (40, 40), 3, MEAN, STD)
    changed = base.with_overrides(Preprocessing(64, 48, (0, 0, 0), (1, 1, 1)))
    assert changed == Transform((64, 64), False, (48, 48), 3, (0, 0, 0), (1, 1, 1))
    assert base.with_overrides(None) is base


@pytest.mark.parametrize("asked", [
    {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    {"size": {"shortest_edge": 41}, "crop_size": {"height": 32, "width": 32}},
    {"size": {"shortest_edge": 24}, "crop_size": {"height": 31, "width": 33}},
    {"do_resize": False, "crop_size": {"height": 32, "width": 32}},
])  # fmt: skip
@pytest.mark.parametrize("size", [(90, 70), (70, 90), (200, 150), (9, 7)])
def test_a_processor_cuts_where_its_library_does(asked, size, tmp_path):
    transformers = pytest.importorskip("transformers")
    processor = transformers.CLIPImageProcessor(**asked)
    processor.save_pretrained(tmp_path)
    transform = read_transform(tmp_path, EncoderSpec("image", str(tmp_path)))
    picture = drawn(*size)
    ours = Standardize(transform)(torch.from_numpy(transform.pixels(picture)[None]))[0].numpy()
    theirs = np.asarray(processor(images=picture, return_tensors="np")["pixel_values"][0])
    assert np.abs(ours - theirs).mean() < 0.02
