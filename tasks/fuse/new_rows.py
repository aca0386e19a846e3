"""Fused vectors of rows that are in no corpus, to one Parquet file."""

from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.dataset.schema import (
    ROW_GROUP_ROWS,
    feature_schema,
    parquet_options,
    vectors_to_array,
)
from barycenter.infra.storage import Storage
from barycenter.tasks.data.new_rows import NewRows
from barycenter.tasks.fuse.kept_columns import kept_type


def encode_new(rows: NewRows, sink: Storage, path: str) -> dict[str, Any]:
    """Writes the fused vectors of new rows to a Parquet file: key, kept columns, ``fused``, ``has_<input>``.

    ``fused`` is null where a row has no input. Of the columns that the features keep those are kept that the table has.

    Returns:
        ``{rows, path}``.
    """
    manifest = rows.fuser.manifest
    kept = [name for name in manifest.kept if name in rows.columns]
    fields = [pa.field(name, kept_type(rows.corpus.columns[name])) for name in kept]
    key, dtype = pa.field(manifest.key, pa.string()), cast(Literal["float32", "float16"], manifest.dtype)
    of_features = feature_schema(key, fields, manifest.dim, dtype, list(manifest.inputs), False, {})
    schema = pa.schema([field.with_nullable(True) if field.name == "fused" else field for field in of_features])
    count = 0
    with sink.writing(path) as stream, pq.ParquetWriter(stream, schema, **parquet_options(schema)) as writer:
        for part in rows.each(kept):
            there = part.usable
            vectors = vectors_to_array(np.where(there[:, None], part.fused, 0).astype(part.fused.dtype))
            fused = pa.FixedSizeListArray.from_arrays(vectors.flatten(), type=vectors.type, mask=pa.array(~there))
            has = [pa.array(~np.isnan(part.views[name][:, 0])) for name in manifest.inputs]
            columns = [pa.array(part.keys, pa.string()), *part.table.columns, fused, *has]
            arrays = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=ROW_GROUP_ROWS)
            count += len(part.keys)
    return {"rows": count, "path": sink.uri(path)}
