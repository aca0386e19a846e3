from decimal import Decimal

import pyarrow as pa
import pytest

from barycenter.fusion.errors import JobError
from barycenter.tasks.fuse.kept_columns import kept_problem, kept_type
from barycenter.tasks.planning.plan import prepare
from tests.tasks.fuse.test_partitions import job_of


@pytest.mark.parametrize(
    "kind",
    [
        pa.decimal32(7, 2), pa.decimal64(12, 2), pa.decimal256(30, 2), pa.list_(pa.decimal32(7, 2)),
        pa.list_(pa.decimal64(12, 2), 3), pa.map_(pa.string(), pa.decimal32(5, 1)), pa.large_list(pa.decimal32(5, 1)),
        pa.struct([("a", pa.int8()), ("b", pa.list_(pa.decimal256(38, 0)))]),
    ],
)  # fmt: skip
def test_decimals_are_those_that_every_reader_knows(kind):
    written = kept_type(kind)
    text = str(written)
    assert "decimal128" in text
    assert not any(other in text for other in ("decimal32", "decimal64", "decimal256"))
    assert pa.nulls(2, kind).cast(written).null_count == 2
    assert kept_problem(kind) is None


def test_zones_that_are_offsets_are_utc():
    for zone in ("+05:30", "-0800"):
        assert kept_type(pa.list_(pa.timestamp("ms", zone))) == pa.list_(pa.timestamp("ms", "UTC"))
    assert pa.array([0], pa.timestamp("s", "+05:30")).cast(pa.timestamp("s", "UTC")).cast(pa.int64())[0].as_py() == 0


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("s", "Asia/Tokyo"),
        pa.int8(),
        pa.map_(pa.string(), pa.int32()),
        pa.list_(pa.float32(), 2),
        pa.string(),
    ],
)
def test_other_types_stay(kind):
    assert kept_type(kind) == kind


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (pa.array([Decimal(10) ** 50], pa.decimal256(60, 2)), "decimals of at most 38 digits"),
        (pa.array([[Decimal(1)]], pa.list_(pa.decimal256(60, 2))), "decimals of at most 38 digits"),
        (pa.array([[], None], pa.list_(pa.float32(), 0)), "fixed size 0"),
        (pa.array([[None, None], None], pa.list_(pa.null(), 2)), "fixed size of nulls"),
        (pa.array([1, 2], pa.time64("ns")), "whole microseconds"),
        (pa.array([{"a": 1, "A": 2}]), "differ by case alone"),
        (pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), "differ by case alone"),
        (pa.array([[{"": 1}]]), "fields without a name"),
    ],
)
def test_what_readers_cannot_hold_is_refused_before_the_work(tmp_path, array, problem):
    with pytest.raises(JobError, match=f"'p' is .*{problem}.*leave it out") as caught:
        prepare(job_of(tmp_path, array, partition=False))
    assert caught.value.key == "corpus.keep"


def test_a_struct_without_fields_is_refused():
    assert "struct without fields" in str(kept_problem(pa.list_(pa.struct([]))))


def test_names_of_inputs_that_are_not_there_are_kept(tmp_path):
    job = job_of(tmp_path, pa.array(["a"]), "has_toxicity", partition=False)
    assert job.corpus.keep == ["has_toxicity"]
    assert prepare(job).corpus.columns["has_toxicity"] == pa.string()


def test_key_is_taken_where_the_corpus_has_no_key_column(tmp_path):
    values = job_of(tmp_path, pa.array(["a"]), partition=False).model_dump(by_alias=True)
    values["corpus"] |= {"key": None, "keep": ["key"]}
    with pytest.raises(ValueError, match="'key' is a column of the output"):
        type(job_of(tmp_path, pa.array(["a"]))).model_validate(values)
