"""Rows whose key an earlier row has, found by the hashes of the keys in one pass over the embedding files."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus import Shard
from barycenter.tasks.data.rows import RowReader, read_ahead

_THREADS = 16
_ROWS_IN_MEMORY = 1_000_000
_MOST_PARTS = 256
_ENTRY = np.dtype([("hash", np.uint64), ("row", np.int64)])

Entries = NDArray[np.void]


def repeated_keys(reader: RowReader, shards: Sequence[Shard]) -> dict[str, tuple[int, ...]]:
    """Rows whose key an earlier row has: {shard id: row numbers}; the first row of a key is kept.

    Reads the 64-bit hashes of all keys once. Those of more than a million rows are spilled by their range into
    temporary files (16 bytes a row), so that memory holds about a million of them, or a 256th where that is more.

    Raises:
        RunError: The folder for temporary files is full or not writable.
    """
    parts = min(_MOST_PARTS, max(1, -(-sum(shard.rows for shard in shards) // _ROWS_IN_MEMORY)))
    found = [_repeated(entries) for entries in _parted(reader, shards, parts)]
    rows = np.sort(np.concatenate([*found, np.empty(0, np.int64)]))
    starts = np.cumsum([0, *(shard.rows for shard in shards)])
    named: dict[str, tuple[int, ...]] = {}
    for number in np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist():
        inside = rows[(rows >= starts[number]) & (rows < starts[number + 1])] - starts[number]
        named[shards[number].id] = tuple(inside.tolist())
    return named


def _parted(reader: RowReader, shards: Sequence[Shard], parts: int) -> Iterator[Entries]:
    """The hash and the row of every key, those of equal hash in one part and in the order of their rows."""
    if parts == 1:
        yield np.concatenate([*_entries(reader, shards), np.empty(0, _ENTRY)])
        return
    held, count = [], 0
    try:
        with tempfile.TemporaryDirectory(prefix="barycenter-keys-") as folder:
            for entries in _entries(reader, shards):
                held.append(entries)
                count += len(entries)
                if count >= _ROWS_IN_MEMORY:
                    _spill(Path(folder), np.concatenate(held), parts)
                    held, count = [], 0
            _spill(Path(folder), np.concatenate([*held, np.empty(0, _ENTRY)]), parts)
            for part in sorted(Path(folder).iterdir()):
                yield np.fromfile(part, _ENTRY)
                part.unlink()
    except OSError as error:
        raise RunError(
            f"the hashes of the keys do not fit into {tempfile.gettempdir()} ({error.strerror}); they take 16 bytes a "
            "row: set TMPDIR to a folder with room"
        ) from error


def _spill(folder: Path, entries: Entries, parts: int) -> None:
    part = (entries["hash"] % np.uint64(parts)).astype(np.int64)
    order = np.argsort(part, kind="stable")
    stops = np.cumsum(np.bincount(part, minlength=parts))
    for number, chosen in enumerate(np.split(order, stops[:-1])):
        if len(chosen):
            with (folder / f"{number:05d}").open("ab") as file:
                entries[chosen].tofile(file)


def _entries(reader: RowReader, shards: Sequence[Shard]) -> Iterator[Entries]:
    """Those of each shard, in order; some shards are read ahead."""
    start = 0
    for hashes in read_ahead(reader.key_hashes, shards, threads=_THREADS, ahead=2 * _THREADS):
        entries = np.empty(len(hashes), _ENTRY)
        entries["hash"], entries["row"] = hashes, np.arange(start, start + len(hashes))
        start += len(hashes)
        yield entries


def _repeated(entries: Entries) -> NDArray[np.int64]:
    order = np.argsort(entries["hash"], kind="stable")
    ordered = entries["hash"][order]
    again: NDArray[np.int64] = entries["row"][order[1:][ordered[1:] == ordered[:-1]]]
    return again
