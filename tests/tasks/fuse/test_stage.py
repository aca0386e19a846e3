import numpy as np
import pyarrow as pa
import pytest

from barycenter.fusion.dataset.schema import feature_schema
from barycenter.fusion.errors import RunError
from barycenter.tasks.fuse.stage import _rows_per_block
from barycenter.tasks.fuse.worker import FuseWorker
from tests.tasks.fuse.test_worker import NAN, rows, setting_of


@pytest.mark.parametrize("rows_read", [4_000_000, 40_000_000, 400_000_000])
@pytest.mark.parametrize("partitions", [1, 10, 100, 1000])
def test_many_partitions_leave_eight_blocks_or_more(rows_read, partitions):
    block = _rows_per_block(rows_read, 1024, partitions)
    assert rows_read / block >= 8
    assert block * 1024 >= 64 * 2**20


def test_few_rows_are_one_block():
    assert _rows_per_block(1000, 1024, 50) == 65536
    assert _rows_per_block(1000, 2**21, 1) == 4096


class Scaled:
    """An alignment that multiplies."""

    def __init__(self, factor):
        self.factor = factor

    def fuse(self, views, average, weights):
        return np.nan_to_num(np.concatenate([view * self.factor for view in views.values()], axis=1))

    def transform(self, views):
        return {name: view * self.factor for name, view in views.items()}


def worker(dtype, factor, keep_aligned=False):
    made = FuseWorker.__new__(FuseWorker)
    schema = feature_schema("id", [], 1, dtype, ["text"], keep_aligned, {})
    made.setting = setting_of(schema, keep_aligned)
    made.alignment = Scaled(factor)
    return made


@pytest.mark.parametrize(
    ("dtype", "factor", "todo"), [("float16", 7e4, "output.dtype to float32"), ("float32", 1e39, "scale")]
)
def test_a_vector_beyond_the_range_of_its_type_is_an_error(dtype, factor, todo):
    read = rows(["a", "b"], text=[0.5, 1])
    with pytest.raises(
        RunError, match=f"row b: element 0 of its vector is {factor:g}.*{dtype}.*{todo}".replace("+", r"\+")
    ):
        worker(dtype, np.float64(factor)).table(read, pa.table({}), np.array([False, True]))


def test_an_aligned_vector_beyond_the_range_is_an_error_and_a_missing_one_is_null():
    read = rows(["a", "b"], text=[1, NAN])
    half = worker("float16", 2.0, keep_aligned=True)
    half.alignment.fuse = lambda views, average, weights: np.ones((2, 1))
    table = half.table(read, pa.table({}), np.array([True, True]))
    assert table.column("aligned_text").to_pylist() == [[2.0], None]
    half.alignment.factor = 1e5
    with pytest.raises(RunError, match="row a: element 0"):
        half.table(read, pa.table({}), np.array([True, True]))
