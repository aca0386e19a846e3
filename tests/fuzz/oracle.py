"""What must come out of a case: which rows are written under which keys, and what the rejects say of the rest."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.dataset.schema import Manifest
from barycenter.tasks.run.context import Run
from tests.fuzz.case import Case
from tests.fuzz.compare import canonical
from tests.fuzz.loose import key_of
from tests.fuzz.tables import usable


@dataclass
class Expected:
    """The rows to be written.

    Attributes:
        rows: {key: row of the case}.
        misfits: (row, column) whose value is a reject of its own.
    """

    rows: dict[str, int]
    misfits: set[tuple[int, str]]


def expected(case: Case, run: Run, out: Path, manifest: Manifest) -> Expected:
    """What is to be found, once keys and rejects were checked."""
    keys: list[str | None] = []
    for shard in run.shards:
        keys += run.corpus.keys(shard, run.corpus.read(shard, []))
    check_keys(case, keys)
    good = [any(usable(case, name, row) for name in case.inputs) for row in range(case.rows)]
    rows: dict[str, int] = {}
    seen: set[str] = set()
    for row, (key, fine) in enumerate(zip(keys, good, strict=True)):
        if key is not None and key not in seen and fine:
            rows[key] = row
        seen |= {key} - {None}
    misfits = check_rejects(case, out, manifest, keys, set(rows.values()))
    return Expected(rows, misfits)


def check_keys(case: Case, keys: list[str | None]) -> None:
    """Every key is that of its row's value, equal for equal values and different for others."""
    if case.key is None:
        assert len(set(keys)) == len(keys)
        return
    texts: dict[Any, str | None] = {}
    for row, key in enumerate(keys):
        if row in case.broken:
            assert key is not None
            assert key.endswith(f"#{row - sum(case.cuts[: int(key[0])])}"), key
            continue
        value = case.value(case.key, row)
        if case.family in ("json", "csv"):
            assert key == key_of(value), (key, value)
            continue
        if isinstance(value, bytes) and row in case.columns[case.key].may_not_fit and _is_text(case):
            continue
        if isinstance(value, str | int) and not isinstance(value, bool):
            assert key == (str(value) or None), (key, value)
        if value is None:
            assert key is None
        assert texts.setdefault(canonical(value), key) == key, (value, key)
    known = [key for key in texts.values() if key is not None]
    assert len(set(known)) == len(known) or case.family == "files", texts


def _is_text(case: Case) -> bool:
    return pa.types.is_string(case.columns[case.key].type)


def check_rejects(
    case: Case, out: Path, manifest: Manifest, keys: list[str | None], written: set[int]
) -> set[tuple[int, str]]:
    """Every row that is not written has a line that says why, every line of a value that does not fit is of one.

    Returns:
        (row, column) of the values that do not fit.
    """
    lines = [line for path in manifest.rejects for line in pq.read_table(out / path).to_pylist()]
    reasons = Counter(line["reason"] for line in lines)
    known = [key for key in keys if key is not None]
    assert reasons["null_key"] == len(keys) - len(known), (reasons, keys)
    assert reasons["duplicate_key"] == len(known) - len(set(known)), (reasons, keys)
    of_inputs = {(line["key"], line["input"]) for line in lines if line["input"] in case.inputs}
    for row, key in enumerate(keys):
        for name in case.inputs:
            assert usable(case, name, row) or (key, name) in of_inputs, (row, key, name, lines)
    misfits = set()
    for line in lines:
        if line["reason"] == "wrong_type" and line["source"] is not None:
            row, name = case.row_of(line["source"]), line["input"]
            no_text = name == case.key and isinstance(case.columns[name].values[row], bytes)
            assert no_text or row in case.columns[name].may_not_fit, (line, case.columns[name])
            assert case.columns[name].values[row] is not None, line
            assert line["key"] == keys[row], line
            misfits.add((row, name))
    return misfits


def rows_refused(case: Case) -> bool:
    """Whether no row of a case is to be written: none has a usable input and a key of its own."""
    for row in range(case.rows):
        if any(usable(case, name, row) for name in case.inputs) and _names_a_row(case, row):
            return False
    return True


def _names_a_row(case: Case, row: int) -> bool:
    """Whether the row's key is one, and no other row's."""
    if case.key is None:
        return True
    value = case.value(case.key, row)
    if value in (None, "", b"") or (isinstance(value, float) and math.isnan(value)):
        return False
    if case.family in ("json", "csv"):
        found = [key_of(case.value(case.key, other)) for other in range(case.rows)]
        return found[row] is not None and found.count(found[row]) == 1
    kind = case.columns[case.key].type
    as_text = isinstance(value, bytes) and not pa.types.is_fixed_size_binary(kind)
    if as_text and value.decode("utf-8", "replace").encode() != value:
        return False
    same = [canonical(case.value(case.key, other)) == canonical(value) for other in range(case.rows)]
    return sum(same) == 1 and case.family != "files"
