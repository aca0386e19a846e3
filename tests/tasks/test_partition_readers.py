"""What FeatureWriters put into folders, read back by every library of README's list and by FusedDataset."""

import datetime
import json
import math

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.dataset import FusedRows
from barycenter.fusion.dataset.schema import Manifest, feature_schema, vectors_to_array
from barycenter.infra.storage import Storage
from barycenter.tasks.fuse.folders import file_type, text_of
from barycenter.tasks.fuse.partitions import check_folders
from barycenter.tasks.fuse.writers import FeatureWriters

NAN = math.nan


def write(out, columns, blocks=1):
    """Writes kept columns, all of them partition columns, as the fuse stage does; the manifest."""
    import numpy as np

    table = pa.table(columns)
    storage, names = Storage(str(out)), tuple(columns)
    fields = []
    for name in names:
        texts = [None if value is None else text_of(value) for value in table.column(name).to_pylist()]
        if (kind := file_type(table.schema.field(name).type, texts)) is not None:
            fields.append(pa.field(name, kind))
    schema = feature_schema("id", fields, 2, "float32", ["a"], False, {})
    files, rows = [], table.num_rows
    for index in range(blocks):
        start, stop = index * rows // blocks, (index + 1) * rows // blocks
        kept = table.slice(start, stop - start)
        arrays = [pa.array([str(i) for i in range(start, stop)]), *(kept.column(field.name) for field in fields)]
        arrays += [vectors_to_array(np.ones((stop - start, 2), np.float32)), pa.array([True] * (stop - start))]
        part = [each.cast(field.type) for each, field in zip(arrays, schema, strict=True)]
        with FeatureWriters(storage, "features/v", index, schema, names) as writers:
            writers.write(pa.Table.from_arrays(part, schema=schema), kept)
        files += writers.files
    types = {name: str(table.schema.field(name).type) for name in names}
    check_folders(storage, files, types, [field.name for field in fields])
    manifest = Manifest(
        number=1, version="v", key="id", dim=2, dtype="float32", inputs={"a": {}}, files=tuple(files),
        partition_types=types, kept=tuple(names),
    )  # fmt: skip
    storage.write("manifest.json", manifest.to_json())
    return manifest


def ordered(ids, values):
    pairs = dict(zip(ids, values, strict=True))
    assert len(pairs) == len(ids)
    return [pairs[str(i)] for i in range(len(ids))]


def pandas_values(out, name):
    table = pd.read_parquet(out / "features/v")
    return ordered(table["id"], [None if pd.isna(value) else value for value in table[name].tolist()])


def polars_values(out, name, **options):
    table = pl.read_parquet(f"{out}/features/v/**/*.parquet", **options)
    return ordered(table["id"].to_list(), table[name].to_list())


def duckdb_values(out, name):
    rows = duckdb.sql(f"""select id, "{name}" from read_parquet('{out}/features/v/**/*.parquet')""").fetchall()
    return ordered(*zip(*rows, strict=True))


def datasets_values(out, name, monkeypatch):
    import datasets

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", out / "cache")
    table = datasets.load_dataset("parquet", data_dir=str(out / "features/v"))["train"]
    return ordered(table["id"], table[name])


def fused_values(out, name):
    table = FusedRows(out)._reader.arrow().to_table(columns=["id", name])
    return ordered(table.column("id").to_pylist(), table.column(name).to_pylist())


TEXTS = {
    "null": ["a", None, "b", None],
    "only null": [None, None],
    "escapes": ["a/b=c%d", "a b", "a+b", "%41", "?*[x]#", "'\"\\<>|:", " lead", "tail ", ".", ".."],
    "unicode": ["日本", "é", "e\u0301", "😀", "\u2028x", "\tx"],
    "long": ["電子機器・家電・カメラ・オーディオ・スマートフォン・アクセサリー一覧", "本"],
    "dates": ["2024-01-01", "2024-01-02", None],
    "spelled": ["1.50", "1e3", "true", "10:30:00", "nan", "null", "NULL", "None"],
    "digits beyond 32 bits": ["3000000000", "007"],
    "case": ["US", "us", "Us"],
    "splits": ["my test", "a-train", "0 val", "test", "x.dev.y", "train_1", "cat", "eval 2"],
    "digits and words": ["007", "7", "x", None],
}


@pytest.mark.parametrize("values", TEXTS.values(), ids=TEXTS)
def test_texts_are_the_same_through_every_reader(tmp_path, values, monkeypatch):
    manifest = write(tmp_path, {"label": pa.array(values, pa.string())})
    assert len(manifest.files) == len(set(values))
    assert fused_values(tmp_path, "label") == values
    assert FusedRows(tmp_path).read()["label"] == [
        value for file in manifest.files for value in [file.partition["label"]] * file.rows
    ]
    assert pandas_values(tmp_path, "label") == values
    assert polars_values(tmp_path, "label") == values
    assert polars_values(tmp_path, "label", hive_partitioning=True) == values
    assert duckdb_values(tmp_path, "label") == values
    assert datasets_values(tmp_path, "label", monkeypatch) == values


def test_empty_text_is_no_null(tmp_path, monkeypatch):
    values = ["", None, "a"]
    write(tmp_path, {"label": pa.array(values)})
    for found in (
        fused_values(tmp_path, "label"),
        pandas_values(tmp_path, "label"),
        polars_values(tmp_path, "label"),
        duckdb_values(tmp_path, "label"),
        datasets_values(tmp_path, "label", monkeypatch),
    ):
        assert found == values


def test_whole_numbers_are_the_same_through_every_reader_of_folders(tmp_path):
    values = [7, -3, 0, 2**31 - 1]
    write(tmp_path, {"n": pa.array(values, pa.int64())})
    assert fused_values(tmp_path, "n") == pandas_values(tmp_path, "n") == duckdb_values(tmp_path, "n") == values
    assert polars_values(tmp_path, "n", hive_partitioning=True) == values


def test_texts_of_digits_are_numbers_to_readers_of_folders_and_text_to_ours(tmp_path):
    write(tmp_path, {"year": pa.array(["2023", "2024"])})
    assert fused_values(tmp_path, "year") == ["2023", "2024"]
    assert pandas_values(tmp_path, "year") == duckdb_values(tmp_path, "year") == [2023, 2024]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.5, NAN, None, NAN, -0.0, 0.0, math.inf, -math.inf], pa.float64()),
        ([0.5, NAN, None], pa.float16()),
        ([datetime.date(2024, 1, 1), None, datetime.date(1969, 12, 31)], pa.date32()),
        ([True, None, False], pa.bool_()),
        ([2**64 - 1, None, 0], pa.uint64()),
    ],
)
def test_other_types_are_the_same_through_ours_and_no_row_is_lost_by_pandas(tmp_path, values, kind):
    import numpy as np

    array = pa.array([np.float16(v) if kind == pa.float16() and v is not None else v for v in values], kind)
    manifest = write(tmp_path, {"p": array}, blocks=2)
    assert sum(file.rows for file in manifest.files) == len(values)
    assert sum(pq.read_metadata(tmp_path / file.path).num_rows for file in manifest.files) == len(values)
    assert json.loads(json.dumps(manifest.to_dict(), allow_nan=False))
    found = fused_values(tmp_path, "p")
    assert [str(value) for value in found] == [
        str(value + 0.0 if value == 0 and value is not False and pa.types.is_floating(kind) else value)
        for value in values
    ]
    assert len(pd.read_parquet(tmp_path / "features/v")) == len(values)


def test_several_columns_make_folders_in_folders(tmp_path):
    columns = {"a": pa.array(["x", None, "y/z", None]), "n": pa.array([1, 2, 2, 1])}
    write(tmp_path, columns)
    for name, column in columns.items():
        assert fused_values(tmp_path, name) == column.to_pylist()
    assert pandas_values(tmp_path, "a") == columns["a"].to_pylist()
    assert pandas_values(tmp_path, "n") == columns["n"].to_pylist()
