"""Kept columns of every type as the readers of fusion give them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from barycenter.fusion.dataset import FusedDataset, FusedRows
from barycenter.fusion.dataset.schema import array_to_vectors, feature_schema, parquet_options, vectors_to_array


def write(out, columns, partition=(), rows=2, key="id", **options):
    """One file of kept columns; ``partition`` is (name, type, value as in JSON), ``options`` are of the writer."""
    kept = [pa.field(name, array.type) for name, array in columns.items()]
    schema = feature_schema(key, kept, 2, "float32", ["a"], False, {})
    arrays = [pa.array([f"k{i}" for i in range(rows)]), *columns.values()]
    arrays += [vectors_to_array(np.ones((rows, 2), np.float32)), pa.array([True] * rows)]
    table = pa.Table.from_arrays([each.cast(f.type) for each, f in zip(arrays, schema, strict=True)], schema=schema)
    (out / "features/v").mkdir(parents=True)
    pq.write_table(table, out / "features/v/part.parquet", **(parquet_options(schema) | options))
    manifest = {
        "number": 1, "version": "v", "key": key, "dim": 2, "dtype": "float32", "inputs": {"a": {}},
        "files": [{"path": "features/v/part.parquet", "rows": rows, "partition": {n: v for n, _, v in partition}}],
        "partition_types": {name: kind for name, kind, _ in partition},
    }  # fmt: skip
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([2**53 + 1, None], pa.int64()),
        ([-(2**63), None], pa.int64()),
        ([-(2**60), 0, None], pa.int64()),
        ([0, 2**60, None], pa.int64()),
        ([2**64 - 1, 2**63], pa.uint64()),
        ([2**63, 0], pa.uint64()),
        ([2**63, None], pa.uint64()),
    ],
)
def test_whole_numbers_that_a_tensor_cannot_hold_are_a_list(tmp_path, values, kind):
    out = write(tmp_path, {"n": pa.array(values, kind)}, rows=len(values))
    [batch] = FusedDataset(out)
    assert batch["n"] == values
    assert FusedRows(out).read()["n"] == values


@pytest.mark.parametrize(("value", "kind"), [(2**63 - 1, pa.int64()), (-(2**63), pa.int64()), (2**63 - 1, pa.uint64())])
def test_whole_numbers_of_64_bits_are_a_tensor(tmp_path, value, kind):
    [batch] = FusedDataset(write(tmp_path, {"n": pa.array([value, 0], kind)}))
    assert batch["n"].dtype == torch.int64
    assert batch["n"].tolist() == [value, 0]


def test_whole_numbers_with_nulls_that_a_float_holds_are_a_tensor(tmp_path):
    [batch] = FusedDataset(write(tmp_path, {"n": pa.array([2**53, None], pa.int64()), "f": pa.array([True, None])}))
    assert batch["n"][0] == 2**53
    assert torch.isnan(batch["n"]).tolist() == torch.isnan(batch["f"]).tolist() == [False, True]


def test_whole_numbers_that_are_all_null_are_a_tensor_of_nan(tmp_path):
    [batch] = FusedDataset(write(tmp_path, {"n": pa.nulls(2, pa.int64())}))
    assert torch.isnan(batch["n"]).all()


def test_a_batch_without_nulls_of_a_column_with_nulls_may_be_written_to(tmp_path, recwarn):
    columns = {"n": pa.array([5, None], pa.int64()), "flag": pa.array([True, None])}
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        first, _ = FusedDataset(write(tmp_path, columns, row_group_size=1), batch_size=1)
    finally:
        torch.set_warn_always(always)
    assert [(first[name].add_(1).tolist(), first[name].dtype) for name in columns] == [
        ([6.0], torch.float64),
        ([2.0], torch.float64),
    ]
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_a_column_without_statistics_may_hold_whatever_its_type_can(tmp_path):
    columns = {
        "long": pa.array([5, None], pa.int64()),
        "unsigned": pa.array([5, 6], pa.uint64()),
        "short": pa.array([5, None], pa.int32()),
        "flag": pa.array([True, None]),
    }
    [batch] = FusedDataset(write(tmp_path, columns, write_statistics=False))
    assert (batch["long"], batch["unsigned"]) == ([5, None], [5, 6])
    for name in ("short", "flag"):
        assert batch[name].dtype == torch.float64
        assert torch.isnan(batch[name]).tolist() == [False, True]


@pytest.mark.parametrize("name", ["key", "has", "aligned"])
def test_the_key_may_be_called_as_a_group_is(tmp_path, name):
    [batch] = FusedDataset(write(tmp_path, {}, key=name))
    assert batch["key"] == ["k0", "k1"]


def test_a_column_that_the_files_hold_too_may_part_them(tmp_path):
    dataset = FusedDataset(write(tmp_path, {}, [("id", "string", "k0")], rows=1))
    assert dataset.arrow().schema.names.count("id") == 1
    assert next(iter(dataset))["key"] == ["k0"]


def test_null_elements_of_a_kept_vector_are_nan(tmp_path):
    column = pa.array([[1, None], [None, 2.5]], pa.list_(pa.float32(), 2))
    [batch] = FusedDataset(write(tmp_path, {"v": column}))
    np.testing.assert_array_equal(batch["v"].numpy(), [[1, np.nan], [np.nan, 2.5]])
    np.testing.assert_array_equal(array_to_vectors(column.slice(1)), [[np.nan, 2.5]])
    nulls = pa.array([None, [None, 1]], pa.list_(pa.float64(), 2))
    np.testing.assert_array_equal(array_to_vectors(nulls), [[np.nan, np.nan], [np.nan, 1]])


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", "007", "007"), ("string", None, None), ("int64", None, None),
        ("date32[day]", "2024-01-31", "2024-01-31"),
        ("double", 1.5, 1.5), ("double", "inf", np.inf), ("float", -0.5, -0.5), ("uint64", 2**64 - 1, 2**64 - 1),
        ("int64", 7, 7), ("bool", True, True), ("date32[day]", None, None),
    ],
)  # fmt: skip
def test_a_partition_value_keeps_its_type(tmp_path, kind, value, expected):
    dataset = FusedDataset(write(tmp_path, {}, [("p", kind, value)]))
    assert str(dataset.arrow().schema.field("p").type) == kind
    [found, _] = dataset.arrow().to_table().column("p").to_pylist()
    assert (str(found) if kind.startswith("date") and value else found) == expected
    [batch] = dataset
    first = batch["p"][0]
    assert (
        np.isnan(first)
        if value is None and kind == "int64"
        else str(getattr(first, "item", lambda: first)()) == str(expected)
    )


def test_a_partition_of_nan_is_nan_and_can_be_asked_for(tmp_path):
    out = write(tmp_path, {}, [("p", "double", "nan")])
    [batch] = FusedDataset(out)
    assert torch.isnan(batch["p"]).all()
    assert FusedDataset(out, filter=pc.is_nan(pc.field("p"))).rows == 2
    assert FusedDataset(out, filter=[("p", ">", 1.0)]).rows == 0


@pytest.mark.parametrize("name", ["key", "has", "aligned"])
def test_a_kept_column_with_a_name_of_the_batchs_own_is_refused(tmp_path, name):
    out = write(tmp_path, {name: pa.array([1, 2])})
    with pytest.raises(ValueError, match=rf"columns: the kept column '{name}' has a name of the batch's own"):
        FusedDataset(out)
    assert set(next(iter(FusedDataset(out, columns=["fused"])))) == {"fused"}
