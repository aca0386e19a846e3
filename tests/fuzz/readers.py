"""README's readers of a committed version, each against the corpus."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.dataset import FusedDataset, FusedRows
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.encoders.builtin import HashingEncoder
from barycenter.infra.storage import Storage
from barycenter.tasks.data.labeled_rows import read_file
from barycenter.tasks.fuse.kept_columns import parts
from tests.fuzz.case import Case
from tests.fuzz.compare import pairs_of_maps, same
from tests.fuzz.loose import text_of
from tests.fuzz.oracle import Expected
from tests.fuzz.tables import usable


def check_fused(case: Case, out: Path, expected: Expected, manifest: Manifest, storage: Storage) -> None:
    """Our own readers: exact values of every column, in batches and as Arrow; and the vectors."""
    table = FusedRows(out)._reader.arrow().to_table()
    keys = table.column(manifest.key).to_pylist()
    for name in others(case):
        same(case, name, table.column(name).to_pylist(), keys, expected)
    check_vectors(case, table, [expected.rows[key] for key in keys])
    batches = list(FusedDataset(out, batch_size=3))
    assert [key for batch in batches for key in batch["key"]] == keys
    for name in others(case):
        if batches and name in batches[0]:
            values = [value for batch in batches for value in _values(batch[name])]
            same(case, name, values, keys, expected, missing=True)
    if case.target is not None:
        parts = [read_file(storage, manifest, file, [manifest.key, case.target]) for file in manifest.files]
        target = pa.concat_tables(parts)
        found = target.column(manifest.key).to_pylist()
        same(case, case.target, target.column(case.target).to_pylist(), found, expected)


def others(case: Case) -> list[str]:
    """The kept columns without the key."""
    return [name for name in case.kept if name != case.key]


def check_vectors(case: Case, table: pa.Table, rows: list[int]) -> None:
    """The fused vectors are those of the inputs, and the flags say which there are."""
    fused = np.array(table.column("fused").to_pylist())
    for number, row in enumerate(rows):
        good = [name for name in case.inputs if usable(case, name, row)]
        assert [name for name in case.inputs if table.column(f"has_{name}")[number].as_py()] == good, (row, good)
        if good != case.inputs:
            continue
        vectors = [_vector(name, case.value(name, row)) for name in case.inputs]
        np.testing.assert_allclose(fused[number], np.mean(vectors, axis=0), rtol=1e-5, atol=1e-6)


def _vector(name: str, value: Any) -> Any:
    return np.array(value) if name != "txt" else _encoder().encode([text_of(value)])[0]


@cache
def _encoder() -> HashingEncoder:
    return HashingEncoder()


def check_pandas(case: Case, features: Path, expected: Expected) -> None:
    """README's line, and pyarrow's; folders of other types than text are texts or numbers to them."""
    for table in (pd.read_parquet(features), pq.read_table(features).to_pandas(types_mapper=None)):
        keys = table[_key(case)].tolist()
        for name in others(case):
            same(case, name, table[name].tolist(), keys, expected, missing=True, folder=name in case.partition)


def check_polars(case: Case, features: Path, expected: Expected) -> None:
    """README's line; text that files are partitioned by is in the files."""
    import polars

    _check_arrow(case, polars.read_parquet(f"{features}/**/*.parquet").to_arrow(), expected)


def check_duckdb(case: Case, features: Path, expected: Expected) -> None:
    """README's line, folders read as DuckDB likes to."""
    import duckdb

    table = duckdb.read_parquet(f"{features}/**/*.parquet").to_arrow_table()
    for name in others(case):
        written = written_type(features, name)
        if written is not None and pa.types.is_duration(written):
            place = table.column_names.index(name)
            table = table.set_column(place, name, table.column(name).cast(written))
    _check_arrow(case, table, expected)


def written_type(features: Path, name: str) -> pa.DataType | None:
    """The type of a column inside the files, if they hold it."""
    schema = pq.read_schema(next(features.rglob("*.parquet")))
    return schema.field(name).type if name in schema.names else None


def check_datasets(case: Case, features: Path, expected: Expected, cache_dir: Path) -> None:
    """README's line; Hugging Face reads no maps."""
    import datasets

    kinds = [case.columns[name].type for name in others(case)]
    if any(kind is not None and _has_map(kind) for kind in kinds):
        return
    datasets.disable_progress_bars()
    found = datasets.load_dataset("parquet", data_dir=str(features), cache_dir=str(cache_dir))
    assert set(found) == {"train"}, found
    _check_arrow(case, found["train"].with_format("arrow")[:], expected)


def _has_map(kind: pa.DataType) -> bool:
    return pa.types.is_map(kind) or any(_has_map(field.type) for field in parts(kind))


def _check_arrow(case: Case, table: pa.Table, expected: Expected) -> None:
    keys = table.column(_key(case)).to_pylist()
    for name in others(case):
        if name in table.column_names:
            values = pairs_of_maps(table.column(name), case.columns[name].type)
            same(case, name, values, keys, expected, folder=name in case.partition)
        else:
            assert name in case.partition, (name, table.column_names)


def _key(case: Case) -> str:
    return "key" if case.key is None else case.key


def _values(column: Any) -> list[Any]:
    return column.tolist() if hasattr(column, "tolist") else list(column)
