import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter.fusion.encoders import EncoderSpec, load
from barycenter.fusion.encoders.multiple_values import embed_unique, embed_vectors, pool_values
from barycenter.fusion.encoders.pipeline import EmbeddingResult, Pipeline, embed
from barycenter.fusion.errors import BadInputError, Reason

HASHING = load(EncoderSpec("text", "builtin/hashing"))
VECTOR = load(EncoderSpec("vector", None, width=3))


def flat(vectors, ok=None):
    n = len(vectors)
    good = np.ones(n, bool) if ok is None else np.array(ok, bool)
    reasons = [None if each else "decode_error" for each in good]
    return EmbeddingResult(np.array(vectors, np.float32), good, reasons, [None] * n, {}, 1)


def test_equal_values_are_encoded_once_and_give_the_same_vectors():
    texts = ["a crab", None, "a fish", "a crab", "", "a fish", None]
    plain = embed(HASHING, texts, batch_size=64, threads=1)
    with Pipeline(HASHING, 1) as pipeline:
        once, encoded = embed_unique(pipeline, texts, texts, batch_size=64)
    assert encoded == 5
    assert np.array_equal(plain.vectors, once.vectors)
    assert plain.ok.tolist() == once.ok.tolist() == [True, False, True, True, False, True, False]
    assert plain.reasons == once.reasons


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2, 3], None, [1, 2], [1, None, 3], [1, float("nan"), 3], [4, 5, 6]], pa.list_(pa.float32())),
        pa.array([[1, 2, 3], None, [1, float("inf"), 3], [4, 5, 6]], pa.list_(pa.float64(), 3)),
        pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.int16())),
        pa.array([["1", "2", "3"]], pa.list_(pa.string())),
        pa.array([1.0, None]),
        pa.array([[1e300, 2, 3], [1, 2, 3]], pa.list_(pa.float64())).slice(1),
        pa.array([], pa.list_(pa.float32(), 3)),
    ],
)
def test_a_column_of_vectors_is_taken_as_the_encoder_would(column):
    slow = embed(VECTOR, column.to_pylist(), batch_size=2, threads=1)
    quick = embed_vectors(VECTOR, column)
    assert quick.ok.tolist() == slow.ok.tolist()
    assert np.array_equal(quick.vectors, slow.vectors)
    assert [str(reason) for reason in quick.reasons] == [str(reason) for reason in slow.reasons]
    assert quick.details == slow.details


def test_the_mean_is_over_the_good_values_and_the_bad_ones_are_reported():
    vectors = [[1, 1], [3, 5], [9, 9], [2, 0], [0, 0], [0, 0]]
    result = pool_values(flat(vectors, [1, 1, 0, 1, 0, 0]), 6, np.array([0, 3, 4, 6]))
    assert result.vectors.tolist() == [[2, 3], [2, 0], [0, 0]]
    assert result.counts.tolist() == [2, 1, 0]
    assert result.ok.tolist() == [True, True, False]
    assert result.reasons == [None, None, "decode_error"]
    assert [(bad.row, bad.position) for bad in result.bad] == [(0, 2), (2, 1)]


def test_weights():
    vectors = [[1.0], [5.0], [7.0], [1.0], [2.0]]
    weights = np.array([3, 1, np.nan, 0, 0])
    result = pool_values(flat(vectors), 5, np.array([0, 3, 5]), weights)
    assert result.vectors.tolist() == [[2.0], [0.0]]
    assert result.counts.tolist() == [2, 0]
    assert result.reasons == [None, "not_numeric"]
    assert [(bad.row, bad.position, bad.reason) for bad in result.bad] == [(0, 2, "not_numeric")]


def test_a_row_can_be_refused_whole():
    result = pool_values(flat([[1], [2], [3]], [1, 0, 1]), 3, np.array([0, 2, 3]))
    result.reject_row(0, BadInputError(Reason.POISONED, "crashed"))
    assert (result.ok.tolist(), result.reasons, result.bad) == ([False, True], ["poisoned", None], [])


@pytest.mark.parametrize("weights", [[1e308, 1e308], [5e-324, 5e-324], [1e-320, 1e-320]])
def test_weights_near_the_ends_of_what_a_number_holds(weights):
    result = pool_values(flat([[1.0, 3.0], [5.0, 7.0]]), 2, np.array([0, 2]), np.array(weights))
    assert result.ok.tolist() == [True]
    assert result.vectors.tolist() == [[3.0, 5.0]]


@settings(deadline=None)
@given(
    weights=st.lists(st.floats(0, 1e308, exclude_min=True), min_size=1, max_size=6),
    power=st.integers(-40, 40),
)
def test_a_scale_common_to_all_weights_changes_nothing(weights, power):
    vectors = np.arange(2 * len(weights), dtype=np.float32).reshape(-1, 2)
    scaled = np.array(weights) / max(weights)
    few = pool_values(flat(vectors), len(weights), np.array([0, len(weights)]), np.maximum(scaled, 1e-100))
    many = pool_values(
        flat(vectors), len(weights), np.array([0, len(weights)]), np.ldexp(np.maximum(scaled, 1e-100), power)
    )
    assert np.array_equal(few.vectors, many.vectors)
    assert few.ok.all()
    assert vectors.min() <= few.vectors.min()
    assert few.vectors.max() <= vectors.max() + 1e-5
