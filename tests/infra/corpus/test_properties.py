"""Any value in any table is read as it is, or is a recorded misfit."""

import csv
import json
import math
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barycenter.infra.corpus.base import misfits_by_row
from barycenter.infra.corpus.types.casting import logical_type
from barycenter.infra.corpus.types.keys import is_key_type
from tests.fuzz.values import KINDS, TEXTS, columns
from tests.infra.corpus.helpers import opened, read

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS
JSON = st.recursive(SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=2))


@pytest.mark.parametrize("kind", KINDS)
def test_parquet_values_are_read_as_they_are(kind: str, tmp_path: Path) -> None:
    @QUICK
    @given(st.integers(1, 7).flatmap(lambda rows: columns(kind, rows)))
    def check(array: pa.Array) -> None:
        pq.write_table(pa.table({"x": array}), tmp_path / "a.parquet", row_group_size=3)
        stored = pq.read_table(tmp_path / "a.parquet").column("x")
        key = "x" if is_key_type(stored.type) else None
        corpus = opened(tmp_path / "a.parquet", key=key)
        assert corpus.columns["x"] == logical_type(stored.type) or kind == "null"
        values = read(corpus, ["x"], 4)
        wanted = [str(value) if isinstance(value, UUID) else value for value in stored.to_pylist()]
        assert repr(values["x"]) == repr(wanted)
        assert set(values["__misfits__"]) == {None} or "binary" in kind
        if key is not None:
            whole = (
                stored.cast(pa.int64()) if pa.types.is_time64(stored.type) else stored
            )  # Python's have no nanoseconds
            assert_keys_name_values(whole.to_pylist(), values[""])

    check()


def assert_keys_name_values(values: list[Any], keys: list[str | None]) -> None:
    known = [(value, key) for value, key in zip(values, keys, strict=True) if key is not None]
    for one, first in known:
        for other, second in known:
            assert (one == other) == (first == second), (one, other)


@QUICK
@given(st.lists(JSON, min_size=1, max_size=6))
def test_json_values_are_kept_or_recorded(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"x": value}) + "\n" for value in values))
    corpus = opened(path, key="x")
    for shard in corpus.shards(4):
        table = corpus.read(shard, ["x"])
        assert not misfits_by_row(table)
        for value, found in zip(values[shard.start : shard.stop], table.column("x").to_pylist(), strict=True):
            assert same(value, found), (value, found)


def same(value: Any, found: Any) -> bool:
    """Whether a value came as it was or as its JSON text."""
    if isinstance(value, list) and isinstance(found, list):
        return len(value) == len(found) and all(map(same, value, found))
    if isinstance(found, str) and not isinstance(value, str):
        return bool(json.loads(found) == value)
    return bool(value == found and (not isinstance(found, float) or math.isfinite(found)))


@QUICK
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6))
def test_csv_texts_are_read_as_they_are(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    values = read(opened(tmp_path / "a.csv", key="a"), ["a", "b"], 4)
    assert set(values["__bad__"]) == {None}
    assert list(zip(values["a"], values["b"], strict=True)) == rows
    assert values[""] == [row[0] or None for row in rows]
