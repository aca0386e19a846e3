import numpy as np
import pytest

from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.pipeline import embed


@pytest.fixture(scope="module")
def both(minilm):
    return [load(EncoderSpec("text", str(minilm), long_text=how)) for how in ("truncate", "window-mean")]


def sentence(words, seed=0):
    return " ".join(np.random.default_rng(seed).choice(["crab", "unbelievably", "sea", "of", "walks"], words))


def test_a_text_that_fits_gives_the_same_vector(both):
    plain, windowed = (embed(encoder, ["a crab", sentence(20)], batch_size=256, threads=1).vectors for encoder in both)
    assert np.array_equal(plain, windowed)


def test_a_long_text_is_the_mean_of_its_windows(both):
    plain, windowed = both
    text = sentence(600)
    parts = plain.tokenizer.windows(text)
    lengths = [len(ids) for ids in plain.tokenizer(parts)]
    assert "".join(parts) == text
    assert len(parts) > 3
    assert max(lengths) <= plain.tokenizer.max_length
    assert min(lengths[:-1]) > plain.tokenizer.max_length // 2
    expected = embed(plain, parts, batch_size=4096, threads=1).vectors.mean(axis=0)
    found = embed(windowed, [text, "short"], batch_size=4096, threads=1).vectors
    assert np.abs(found[0] - expected).max() < 1e-6
    assert np.abs(found[1] - embed(plain, ["short"], batch_size=1, threads=1).vectors[0]).max() < 1e-6


def test_windows_make_another_encoder(tiny_bert):
    specs = [EncoderSpec("text", str(tiny_bert), long_text=how) for how in ("truncate", "window-mean")]
    assert describe(specs[0]).encoder_id != describe(specs[1]).encoder_id
