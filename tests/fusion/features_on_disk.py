"""Writes small fused data sets as the fuse stage does, for the tests of the format and of the reader."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.dataset.schema import feature_schema, parquet_options, vectors_to_array

KEPT = [pa.field("label", pa.string()), pa.field("price", pa.float64()), pa.field("count", pa.int64())]
INPUTS = {
    "text": {"kind": "text", "encoder": "builtin/hashing", "encoder_id": "t", "dim": 8},
    "image": {"kind": "image", "encoder": "builtin/descriptor", "encoder_id": "i", "dim": 9},
}


def rows_table(start: int, rows: int, dim: int, dtype: str, aligned: bool, metadata: dict[str, str]) -> pa.Table:
    """Rows ``start`` to ``start + rows``: every value follows from the row's number."""
    schema = feature_schema("id", KEPT, dim, dtype, list(INPUTS), aligned, metadata)
    number = np.arange(start, start + rows)
    vectors = (number[:, None] + np.arange(dim) / 8).astype(dtype)
    columns: dict[str, Any] = {
        "id": pa.array([f"k{i}" for i in number], pa.string()),
        "label": pa.array([None if i % 7 == 0 else f"c{i % 3}" for i in number], pa.string()),
        "price": pa.array([None if i % 5 == 0 else i / 4 for i in number], pa.float64()),
        "count": pa.array(number, pa.int64()),
        "fused": vectors_to_array(vectors),
        "has_text": pa.array(number % 2 == 0),
        "has_image": pa.array(number % 3 != 0),
    }
    if aligned:
        for name in INPUTS:
            mask = pa.array(~columns[f"has_{name}"].to_numpy(zero_copy_only=False))
            array = vectors_to_array(vectors + 1)
            columns[f"aligned_{name}"] = pa.FixedSizeListArray.from_arrays(array.flatten(), type=array.type, mask=mask)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def write_features(
    out: Path,
    files: list[int],
    *,
    dim: int = 4,
    dtype: str = "float32",
    row_group: int = 10,
    partitions: list[Any] | None = None,
    aligned: bool = False,
    number: int = 1,
    version: str = "v1",
) -> dict[str, Any]:
    """Writes files of so many rows and commits them; ``partitions`` gives each file's value of ``shop``."""
    entries, start = [], 0
    for index, rows in enumerate(files):
        partition = {} if partitions is None else {"shop": partitions[index]}
        folder = "".join(f"{k}={'__HIVE_DEFAULT_PARTITION__' if v is None else v}/" for k, v in partition.items())
        path = out / f"features/{version}/{folder}part-{index:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = rows_table(start, rows, dim, dtype, aligned, {"code": "test"})
        with pq.ParquetWriter(path, table.schema, **parquet_options(table.schema)) as writer:
            writer.write_table(table, row_group_size=row_group)
        content = path.read_bytes()
        entries.append(
            {
                "path": str(path.relative_to(out)),
                "rows": rows,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "partition": partition,
            }
        )
        start += rows
    manifest = {
        "number": number,
        "parent": number - 1 or None,
        "version": version,
        "created": "2026-01-01T00:00:00Z",
        "files": entries,
        "key": "id",
        "dim": dim,
        "dtype": dtype,
        "inputs": INPUTS,
        "alignment_id": "a1",
        "alignment": {"method": "joint", "dim": dim},
        "average": {"method": "mean", "weights": None},
        "partition_types": {} if partitions is None else {"shop": str(pa.array(partitions).type)},
        "kept": [field.name for field in KEPT] + ([] if partitions is None else ["shop"]),
        "rows": {"read": start, "written": start, "rejected": 0},
        "shards": ["s1"],
    }
    (out / "manifests").mkdir(parents=True, exist_ok=True)
    for path in (out / f"manifests/{number}.json", out / "manifest.json"):
        path.write_text(json.dumps(manifest))
    return manifest
