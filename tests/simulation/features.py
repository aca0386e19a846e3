"""Feature files of tiny jobs: rows are made, parted and encoded as Parquet once for one and the same content."""

import io
import json
import math
from collections.abc import Iterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.tasks.fuse import writers

ROWS = 4
PARTS = (math.nan, None, math.nan, None)
"""The value that each row of a shard is partitioned by: one that does not equal itself, and none."""

SCHEMA = pa.schema([("key", pa.string()), ("fused", pa.list_(pa.float32(), 1))])
_MOST = 4096

Part = tuple[str, writers.Values, pa.Table]

_parted = writers._parted
_parts: dict[int, tuple[pa.Table, pa.Table, list[Part]]] = {}


@lru_cache(maxsize=_MOST)
def rows_to_write(dim: int, embedding: bytes) -> tuple[pa.Table, pa.Table, list[str]]:
    """The feature rows of a shard, what they are partitioned by, and its rejects."""
    read = json.loads(embedding)
    names = [f"{read['encoder']}/{read['shard']}/{row}" for row in range(ROWS)]
    good = [row for row, state in enumerate(read["rows"]) if state == "good"]
    rejects = [f"{names[row]} {read['rows'][row]}" for row in range(ROWS) if row not in good]
    table = pa.table([[names[row] for row in good], [[float(dim)]] * len(good)], schema=SCHEMA)
    kept = pa.table({"part": pa.array([PARTS[row] for row in good], pa.float64())})
    _parts[id(table)] = table, kept, list(_parted(table, kept, ("part",)))
    return table, kept, rejects


def parted_once(table: pa.Table, kept: pa.Table, names: tuple[str, ...]) -> Iterator[Part]:
    """As the function of the writers, which depends on nothing else; from memory for rows of :func:`rows_to_write`."""
    mine, its, parts = _parts.get(id(table), (None, None, []))
    return iter(parts) if mine is table and its is kept and names == ("part",) else _parted(table, kept, names)


class KnownWriter:
    """A ``ParquetWriter`` whose bytes are those of pyarrow's, call by call; it encodes what it has not met."""

    _known: dict[tuple[Any, ...], list[bytes]] = {}  # noqa: RUF012 - of all

    def __init__(self, sink: Any, schema: pa.Schema, **options: Any) -> None:
        self._sink, self._schema, self._options = sink, schema, options
        self._asked: list[tuple[pa.Table, dict[str, Any]]] = []
        self._key: tuple[Any, ...] = (str(schema), str(options))
        self._give()

    def write_table(self, table: pa.Table, **how: Any) -> None:
        """Appends rows."""
        self._asked.append((table, how))
        self._key = (*self._key, repr([column.to_pylist() for column in table.columns]), str(how))
        self._give()

    def close(self) -> None:
        """Ends the file."""
        self._key = (*self._key, "end")
        self._give()

    def _give(self) -> None:
        if self._key not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[self._key] = self._encoded(ended=self._key[-1] == "end")
        for chunk in self._known[self._key]:
            self._sink.write(chunk)

    def _encoded(self, ended: bool) -> list[bytes]:
        """What pyarrow writes at the last call after all those before."""
        said = _Said()
        writer = pq.ParquetWriter(said, self._schema, **self._options)
        for number, (table, how) in enumerate(self._asked, 1):
            if number == len(self._asked) and not ended:
                said.chunks.clear()
            writer.write_table(table, **how)
        if ended:
            said.chunks.clear()
            writer.close()
            return said.chunks
        chunks = list(said.chunks)
        writer.close()
        return chunks


class _Said(io.RawIOBase):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        self.chunks.append(bytes(data))
        self._size += len(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size


KNOWN_PARQUET = SimpleNamespace(ParquetWriter=KnownWriter)
"""Stands for ``pyarrow.parquet`` where feature files are written."""
