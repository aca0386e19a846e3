import numpy as np
import pytest

from barycenter.fusion.encoders.base import Encoder
from barycenter.fusion.encoders.batch_check import check_independence, depends_on_batch
from barycenter.fusion.errors import JobError

ROWS = [[1.0], [2.0, 5.0], [3.0, 1.0, 7.0]]


class Fake(Encoder):
    dim = 2

    def __init__(self, batch):
        self._batch = batch

    def prepare(self, value):
        return value

    def encode(self, batch):
        return np.asarray(self._batch(batch), np.float32)


def sums(batch):
    return [[sum(row), 1.0] for row in batch]


def padded(batch):
    longest = max(map(len, batch))
    return [[sum(row), longest] for row in batch]


def masked_at_random(batch):
    return np.random.default_rng().random((len(batch), 2))


def by_place(batch):
    return [[sum(row), place] for place, row in enumerate(batch)]


def test_a_function_of_the_row_alone_passes():
    check_independence(Fake(sums), ROWS, "m")
    check_independence(Fake(lambda batch: [[np.nan if len(row) == 1 else 1.0, sum(row)] for row in batch]), ROWS, "m")


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (padded, "depending on the rows encoded with it"),
        (by_place, "depending on the rows encoded with it"),
        (masked_at_random, "draws at random"),
        (lambda batch: [[np.nan, 1.0]] * len(batch), "NaN or infinite"),
    ],
)
def test_others_are_refused_by_name(batch, words):
    with pytest.raises(JobError, match=words) as caught:
        check_independence(Fake(batch), ROWS, "some/model")
    assert caught.value.key == "encoder"
    assert "some/model" in caught.value.problem


def test_a_tolerance_for_formats_with_fewer_digits():
    encoder = Fake(lambda batch: [[1.0 + 0.01 * len(batch), 1.0] for _ in batch])
    assert depends_on_batch(encoder, ROWS)
    assert not depends_on_batch(encoder, ROWS, tolerance=0.1)
