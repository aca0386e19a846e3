import numpy as np
import pytest
from PIL import Image

from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import drawn, encoded

TEXT = EncoderSpec("text", "builtin/hashing")
PICTURE = EncoderSpec("image", "builtin/descriptor")


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_related_texts_are_nearer():
    texts = ["a red crab on the beach", "the red crabs at the beach", "quarterly invoice for services", "🦀", "?!"]
    vectors = embed(load(TEXT), texts, batch_size=8, threads=1).vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.2


def test_descriptor_separates_color_and_direction():
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = 255
    across, down = Image.fromarray(stripes), Image.fromarray(stripes.transpose(1, 0, 2))
    shifted = Image.fromarray(np.roll(stripes, 4, axis=1))
    encoder = load(PICTURE)
    vectors = embed(encoder, [encoded(p) for p in (across, shifted, down)], batch_size=3, threads=1).vectors
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.1
    red, blue = (encoder.encode([encoder.prepare(encoded(Image.new("RGB", (50, 50), c)))])[0] for c in ("red", "blue"))
    assert np.isfinite(red).all()
    assert np.linalg.norm(red - blue) > 1


@pytest.mark.parametrize("spec", [TEXT, PICTURE], ids=["text", "image"])
def test_deterministic_whatever_the_batch(spec):
    values = ["a b c", "crab", "boat boat"] if spec.kind == "text" else [encoded(drawn(seed=s)) for s in range(3)]
    one, many = (embed(load(spec), values, batch_size=b, threads=t).vectors for b, t in ((1, 1), (3, 2)))
    assert np.array_equal(one, many)
    assert one.shape[1] == describe(spec).dim


def test_unknown_names_tell_what_there_is():
    with pytest.raises(JobError, match="builtin/hashing"):
        describe(EncoderSpec("text", "builtin/descriptor"))
    with pytest.raises(JobError, match="builtin/descriptor"):
        describe(EncoderSpec("image", "builtin/nothing"))
