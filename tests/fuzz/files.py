"""A case's files as a user would have them."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.case import Case

_BROKEN = (b'{"k": "\xff"}', b'{"k": ', b"[1]", b'"text"')


def write_files(case: Case, folder: Path) -> None:
    """Writes ``0-rows.<form>``, ``1-rows.<form>`` and so on."""
    folder.mkdir()
    start = 0
    for number, rows in enumerate(case.cuts):
        path = folder / f"{number}-rows.{case.form}"
        if case.form == "parquet":
            table = pa.table({name: column.arrays[number] for name, column in case.columns.items()})
            pq.write_table(table, path, row_group_size=3)
        else:
            lines = _json(case, range(start, start + rows)) if case.family == "json" else _csv(case, start, rows)
            path.write_bytes(_compressed(b"".join(lines), path.suffix))
        start += rows


def _json(case: Case, rows: Sequence[int]) -> list[bytes]:
    lines = []
    for row in rows:
        if row in case.broken:
            lines.append(_BROKEN[row % len(_BROKEN)])
            continue
        values = {name: column.values[row] for name, column in case.columns.items()}
        written = {name: value for name, value in values.items() if value is not None or row % 2}
        lines.append(json.dumps(written, ensure_ascii=row % 3 == 0 or _has_surrogate(written)).encode())
    ends = [b"\r\n" if case.rows % 2 else b"\n"] * len(lines)
    return [part for pair in zip(lines, ends, strict=True) for part in pair]


def _has_surrogate(written: object) -> bool:
    return any("\ud800" <= sign <= "\udfff" for sign in json.dumps(written, ensure_ascii=False))


def _csv(case: Case, start: int, rows: int) -> list[bytes]:
    delimiter = "\t" if case.form.startswith("tsv") else ","
    names = list(case.columns)
    lines = [_line(names, delimiter)]
    for row in range(start, start + rows):
        values = ["" if column.values[row] is None else column.values[row] for column in case.columns.values()]
        if row in case.broken:
            lines.append(b'"\xff' + _line(values, delimiter)[1:] if row % 2 else _line([*values, "more"], delimiter))
        else:
            lines.append(_line(values, delimiter))
    return lines


def _line(values: Sequence[str], delimiter: str) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerow(values)
    return stream.getvalue().encode()


def _compressed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data)
    return pa.compress(data, "zstd", asbytes=True) if suffix == ".zst" else data
