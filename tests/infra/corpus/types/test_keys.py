import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.types.keys import key_texts
from tests.infra.corpus.helpers import jsonl, opened, read

ID = uuid.UUID("7ed4bffc-f189-40b0-9090-c58e1cba14b8")


@pytest.mark.parametrize(
    ("values", "kind", "texts"),
    [
        ([7, None], pa.int8(), ["7", None]),
        ([2**64 - 1], pa.uint64(), ["18446744073709551615"]),
        ([7.0, 0.5, -0.0, float("nan")], pa.float64(), ["7", "0.5", "0", None]),
        ([Decimal("1.50"), Decimal("7.00")], pa.decimal128(10, 2), ["1.5", "7"]),
        ([True, False], pa.bool_(), ["true", "false"]),
        ([dt.date(2024, 1, 2)], pa.date32(), ["2024-01-02"]),
        ([1_500], pa.timestamp("ms"), ["1970-01-01 00:00:01.5"]),
        ([10_000], pa.timestamp("ms"), ["1970-01-01 00:00:10"]),
        ([10], pa.timestamp("s", "Europe/Berlin"), ["1970-01-01 00:00:10Z"]),
        ([1], pa.duration("s"), ["1000000000"]),
        ([ID.bytes], pa.binary(16), [ID.bytes.hex()]),
        (["a", ""], pa.string_view(), ["a", None]),
        (["a", None], pa.dictionary(pa.int8(), pa.large_string()), ["a", None]),
    ],
)
def test_one_text_for_a_value(values: list[object], kind: pa.DataType, texts: list[str | None]) -> None:
    assert key_texts(pa.chunked_array([pa.array(values, kind)]))[0].to_pylist() == texts


def test_uuids_are_read_as_they_are_written(tmp_path: Path) -> None:
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([ID.bytes, None], pa.binary(16)))
    pq.write_table(pa.table({"id": column, "owner": column}), tmp_path / "a.parquet")
    values = read(opened(tmp_path / "a.parquet", key="id"), ["owner"])
    assert values[""] == values["owner"] == [str(ID), None]


def test_numbers_keep_every_digit_and_one_form_across_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([9007199254740993, 7])}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": pa.array([7.0, 0.5])}), tmp_path / "b.parquet")
    assert read(opened(tmp_path, key="id"), [])[""] == ["9007199254740993", "7", "7", "0.5"]
    (tmp_path / "c.jsonl").write_text(jsonl([{"id": 7.0}, {"id": 7}, {"id": float("nan")}]))
    assert read(opened(tmp_path / "c.jsonl", key="id"), [])[""] == ["7", "7", None]


def test_a_key_without_a_text_is_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [[1]], "s": [{"a": 1}]}), tmp_path / "a.parquet")
    for name in ("id", "s"):
        with pytest.raises(JobError, match=f"corpus.key: '{name}' is .*cannot be a key"):
            opened(tmp_path / "a.parquet", key=name).check_columns({"corpus.key": name})
