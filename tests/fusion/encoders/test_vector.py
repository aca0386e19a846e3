import numpy as np
import pytest

from barycenter.fusion.encoders import EncoderSpec, describe, load
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.errors import BadInputError, JobError, Reason

SPEC = EncoderSpec("vector", None, width=3)


def test_vectors_pass_unchanged():
    rows = [[1, 2, 3], np.array([0.5, 0.25, 0.125]), (1.5, -2, 1e-30)]
    result = embed(load(SPEC), rows, batch_size=2, threads=1)
    assert result.ok.all()
    assert np.array_equal(result.vectors, np.array([list(r) for r in rows], np.float32))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, Reason.NULL), ([1, 2], Reason.WRONG_LENGTH), ([], Reason.WRONG_LENGTH), (3.0, Reason.WRONG_LENGTH),
     ([[1, 2, 3]], Reason.WRONG_LENGTH), ([1, float("nan"), 3], Reason.NOT_FINITE), ([1, 1e300, 3], Reason.NOT_FINITE),
     (["a", "b", "c"], Reason.NOT_NUMERIC), ([1, None, 3], Reason.NOT_NUMERIC), ("1,2,3", Reason.NOT_NUMERIC),
     ([[1], [2, 3], 4], Reason.NOT_NUMERIC), ({"a": 1}, Reason.NOT_NUMERIC)],
)  # fmt: skip
def test_bad_vectors(value, reason):
    with pytest.raises(BadInputError) as caught:
        load(SPEC).prepare(value)
    assert caught.value.reason == reason


def test_width_is_the_identity():
    assert describe(SPEC).dim == 3
    assert describe(SPEC).encoder_id != describe(EncoderSpec("vector", None, width=4)).encoder_id
    with pytest.raises(JobError):
        describe(EncoderSpec("vector", None))
