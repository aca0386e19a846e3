import io
import json

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.dataset.schema import (
    Manifest,
    array_to_vectors,
    feature_schema,
    parquet_options,
    vector_type,
    vectors_to_array,
)
from barycenter.fusion.errors import RunError
from tests.fusion.features_on_disk import write_features


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_vectors_and_arrays_share_memory_both_ways(dtype):
    vectors = np.arange(12, dtype=dtype).reshape(4, 3)
    array = vectors_to_array(vectors)
    back = array_to_vectors(array)
    assert address(back) == address(vectors)
    assert array.type == vector_type(3, dtype)
    np.testing.assert_array_equal(back, vectors)


def test_a_slice_gives_its_own_rows_and_still_no_copy():
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    part = array_to_vectors(vectors_to_array(vectors).slice(1, 2))
    np.testing.assert_array_equal(part, vectors[1:3])
    assert address(part) == address(vectors[1:])


def test_chunks_are_joined_in_order_and_none_is_an_empty_matrix():
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    array = vectors_to_array(vectors)
    chunked = pa.chunked_array([array.slice(2), array.slice(0, 2)])
    np.testing.assert_array_equal(array_to_vectors(chunked), vectors[[2, 3, 0, 1]])
    assert array_to_vectors(pa.chunked_array([], type=vector_type(3))).shape == (0, 3)
    assert array_to_vectors(vectors_to_array(np.empty((0, 3), np.float32))).shape == (0, 3)


def test_a_null_vector_reads_as_nan_and_the_others_keep_their_rows():
    array = pa.array([[1.0, 2.0], None, [3.0, 4.0]], vector_type(2))
    np.testing.assert_array_equal(array_to_vectors(array), np.float32([[1, 2], [np.nan] * 2, [3, 4]]))
    np.testing.assert_array_equal(array_to_vectors(array.slice(1)), np.float32([[np.nan] * 2, [3, 4]]))


def test_a_single_chunk_is_not_copied():
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert address(array_to_vectors(pa.chunked_array([vectors_to_array(vectors)]))) == address(vectors)


def test_what_is_no_vector_is_refused():
    with pytest.raises(TypeError, match="fixed-size list"):
        array_to_vectors(pa.array([[1.0], [2.0]]))
    with pytest.raises(ValueError, match="shape"):
        vectors_to_array(np.zeros(3, np.float32))


def test_schema_order_nullability_and_clashes():
    schema = feature_schema("id", [pa.field("label", pa.string())], 5, "float16", ["a", "b"], True, {"m": "1"})
    assert schema.names == ["id", "label", "fused", "has_a", "has_b", "aligned_a", "aligned_b"]
    assert not schema.field("fused").nullable
    assert not schema.field("fused").type.value_field.nullable
    assert schema.field("aligned_a").nullable
    assert schema.metadata == {b"m": b"1"}
    with pytest.raises(ValueError, match="share a name: fused"):
        feature_schema("id", [pa.field("fused", pa.string())], 5, "float32", ["a"], False, {})


def test_what_a_row_always_has_is_never_null():
    schema = feature_schema("id", [pa.field("label", pa.string())], 5, "float32", ["a", "b"], True, {}, ["b"])
    assert schema.names == ["id", "label", "fused", "has_a", "has_b", "count_b", "aligned_a", "aligned_b"]
    assert [field.name for field in schema if not field.nullable] == ["id", "fused", "has_a", "has_b", "count_b"]
    key = pa.field("number", pa.int64(), nullable=False)
    assert feature_schema(key, [], 5, "float32", ["a"], False, {}).field(0) == key


@pytest.mark.parametrize(("dtype", "encoding"), [("float32", "BYTE_STREAM_SPLIT"), ("float16", "PLAIN")])
def test_vectors_are_encoded_without_dictionary(tmp_path, dtype, encoding):
    write_features(tmp_path, [25], dtype=dtype, row_group=10, aligned=True)
    (path,) = tmp_path.rglob("*.parquet")
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [10, 10, 5]
    columns = {metadata.row_group(0).column(i).path_in_schema: metadata.row_group(0).column(i) for i in range(9)}
    for name in ("fused", "aligned_text"):
        column = columns[f"{name}.list.element"]
        assert encoding in column.encodings
        assert not column.has_dictionary_page
        assert column.compression == "ZSTD"
    assert columns["label"].has_dictionary_page
    assert pq.read_schema(path).field("fused").type == vector_type(4, dtype)


def test_options_of_a_schema_of_vectors_alone(tmp_path):
    schema = pa.schema([pa.field("fused", vector_type(2), nullable=False)])
    with pq.ParquetWriter(tmp_path / "v.parquet", schema, **parquet_options(schema)) as writer:
        writer.write_table(pa.table({"fused": vectors_to_array(np.ones((3, 2), np.float32))}, schema=schema))
    assert pq.read_table(tmp_path / "v.parquet").num_rows == 3
    assert not pq.read_metadata(tmp_path / "v.parquet").row_group(0).column(0).is_stats_set


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_everyone_reads_the_same_rows_partition_folders_included(tmp_path, dtype):
    manifest = write_features(tmp_path, [25, 13, 7], dtype=dtype, partitions=["north", "so uth", None])
    paths = [str(tmp_path / file["path"]) for file in manifest["files"]]
    expected = np.arange(45)[:, None] + np.arange(4) / 8
    shops = ["north"] * 25 + ["so uth"] * 13 + [None] * 7
    labels = [None if i % 7 == 0 else f"c{i % 3}" for i in range(45)]

    arrow = pads.dataset(str(tmp_path / "features/v1"), partitioning="hive").to_table().sort_by("count")
    np.testing.assert_array_equal(array_to_vectors(arrow["fused"]), expected.astype(dtype))
    assert arrow["shop"].to_pylist() == shops

    glob = str(tmp_path / "features/v1/**/*.parquet")
    sql = f"select id, fused, label, shop from read_parquet('{glob}', hive_partitioning=true) order by count"
    rows = duckdb.sql(sql).fetchall()
    assert [(row[0], row[2]) for row in rows] == [(f"k{i}", labels[i]) for i in range(45)]
    np.testing.assert_allclose([row[1] for row in rows], expected.astype(dtype).astype(float))
    assert [row[3] for row in rows][:38] == shops[:38]

    frame = pl.read_parquet(glob, hive_partitioning=True).sort("count")
    np.testing.assert_array_equal(np.stack(frame["fused"].to_list()), expected.astype(dtype))
    assert frame["label"].to_list() == labels
    assert frame["shop"].to_list()[:38] == shops[:38]

    datasets = pytest.importorskip("datasets")
    hub = datasets.Dataset.from_parquet(paths, cache_dir=str(tmp_path / "cache")).with_format("numpy")
    np.testing.assert_array_equal(np.asarray(hub["fused"]), expected.astype(dtype))
    assert hub.with_format(None)["label"][:] == labels


def test_manifest_round_trip_keeps_what_it_does_not_know(tmp_path):
    values = write_features(tmp_path, [12, 3], partitions=["a", "b"])
    manifest = Manifest.read(tmp_path / "manifest.json")
    assert manifest.to_dict() | values == manifest.to_dict()
    assert Manifest.read(io.BytesIO(json.dumps(values).encode())) == manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert (manifest.key, manifest.dim, manifest.shards) == ("id", 4, ("s1",))
    assert manifest.other_keys == {"created": "2026-01-01T00:00:00Z"}
    assert "other_keys" not in manifest.to_dict()
    assert sum(file.rows for file in manifest.files) == 15


def test_what_a_manifest_does_not_say_is_empty():
    least = {
        "version": "v",
        "key": "id",
        "dim": 4,
        "dtype": "float32",
        "inputs": {},
        "files": [{"path": "p", "rows": 3}],
    }
    manifest = Manifest.from_dict(least)
    [file] = manifest.files
    assert (file.path, file.rows) == ("p", 3)
    assert not any((file.bytes, file.sha256, file.partition))
    unsaid = {name: value for name, value in manifest.to_dict().items() if name not in least}
    assert unsaid.pop("promote") == "auto", "a version that says nothing was seen at once"
    assert not any(unsaid.values())


def test_any_other_key_of_a_manifest_is_kept(tmp_path):
    values = write_features(tmp_path, [3]) | {"other_keys": [1], "later": {"a": 1}}
    back = json.loads(Manifest.from_dict(values).to_json())
    assert back | values == back


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "manifest.json"
    with pytest.raises(RunError, match=f"^{path}: no manifest here"):
        Manifest.read(path)
    path.write_text("{")
    with pytest.raises(RunError, match=f"^{path}: not a manifest"):
        Manifest.read(path)
    with path.open("rb") as opened, pytest.raises(RunError, match=f"^{path}: not a manifest"):
        Manifest.read(opened)
    with pytest.raises(RunError, match=r"^manifest: not a manifest"):
        Manifest.read(io.BytesIO(b"{"))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"number": 1, "files": [{"rows": 3}]}'])
def test_what_is_no_manifest_is_one_line(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(RunError, match="not a manifest"):
        Manifest.read(tmp_path / "manifest.json")


def test_no_manifest_is_one_line(tmp_path):
    with pytest.raises(RunError, match="nothing has been committed"):
        Manifest.read(tmp_path / "manifest.json")
