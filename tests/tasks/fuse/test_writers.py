import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.dataset.schema import ROW_GROUP_ROWS, FeatureFile, feature_schema, vectors_to_array
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.tasks.fuse import writers as module
from barycenter.tasks.fuse.writers import FeatureWriters

SCHEMA = feature_schema("id", [], 4, "float32", ["a"], False, {})


def features(first, count):
    rows = np.arange(first, first + count)
    vectors = vectors_to_array(np.repeat(rows[:, None], 4, axis=1).astype(np.float32))
    columns = [pa.array(map(str, rows)), vectors, pa.array(np.ones(count, bool))]
    return pa.Table.from_arrays([each.cast(f.type) for each, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def write(storage, parts, labels, names=("label",)):
    with FeatureWriters(storage, "features/v", 3, SCHEMA, names) as writers:
        for part, label in zip(parts, labels, strict=True):
            writers.write(part, pa.table({"label": pa.array(label, pa.string())}))
    return writers.files


def test_row_groups_are_whole_whatever_the_shards(tmp_path):
    parts = [features(0, 3000), features(3000, 1500), features(4500, 700)]
    [file] = write(Storage(str(tmp_path)), parts, [["x"] * 3000, ["x"] * 1500, ["x"] * 700], names=())
    content = (tmp_path / file.path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert file == FeatureFile("features/v/part-00003.parquet", 5200, len(content), digest)
    meta = pq.read_metadata(tmp_path / file.path)
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [2048, 2048, 1104]
    assert pq.read_table(tmp_path / file.path).column("id").to_pylist() == [str(row) for row in range(5200)]


@pytest.mark.parametrize("held", [2**28, 1])
def test_every_partition_is_one_file_in_corpus_order(tmp_path, monkeypatch, held):
    monkeypatch.setattr(module, "_BUFFERED_BYTES", held)
    labels = [["b", "a/ü", None] * 100, ["a/ü"] * 5000]
    files = write(Storage(str(tmp_path)), [features(0, 300), features(300, 5000)], labels)
    assert sorted(file.rows for file in files) == [100, 100, 5100]
    assert {file.partition["label"] for file in files} == {"b", "a/ü", None}
    table = ds.dataset(tmp_path / "features/v", partitioning="hive").to_table()
    assert table.num_rows == 5300
    for label in ("b", "a/ü", None):
        found = [int(row["id"]) for row in table.to_pylist() if row["label"] == label]
        assert found == [i for i, each in enumerate(labels[0] + labels[1]) if each == label]
    if held > 1:
        [large] = [file for file in files if file.rows == 5100]
        assert pq.read_metadata(tmp_path / large.path).row_group(0).num_rows == ROW_GROUP_ROWS


def test_too_many_partitions_say_what_to_do(tmp_path):
    with pytest.raises(RunError, match=r"output.partition_by: label has 1001 values or more.*fewer values"):
        write(Storage(str(tmp_path)), [features(0, 1100)], [[str(row) for row in range(1100)]])
    assert not list(tmp_path.rglob("*.parquet"))
