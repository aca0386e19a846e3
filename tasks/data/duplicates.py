"""Rows whose key another row has, found by the hashes of the keys in one pass over the embedding files."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus import Shard
from barycenter.infra.words import counted
from barycenter.tasks.data.rows import RowReader, read_ahead
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.input_values import hash_keys

OnDuplicate: TypeAlias = Literal["first", "last", "fail"]

_THREADS = 16
_ROWS_IN_MEMORY = 1_000_000
_MOST_PARTS = 256
_KEYS_NAMED, _ROWS_NAMED = 3, 4
_ENTRY = np.dtype([("hash", np.uint64), ("row", np.int64)])

Entries = NDArray[np.void]


def counted_reader(run: Run) -> RowReader:
    """The reader of a run's rows that leaves out those whose key another row counts for; embeddings are complete.

    Raises:
        RunError: As :func:`repeated_keys`.
    """
    reader = RowReader.of(run)
    if run.left_out is None:
        run.left_out = repeated_keys(reader, run.shards, run.job.corpus.on_duplicate)
    return replace(reader, left_out=run.left_out)


def repeated_keys(
    reader: RowReader, shards: Sequence[Shard], on_duplicate: OnDuplicate = "first"
) -> dict[str, tuple[int, ...]]:
    """Rows that are left out because another row of their key counts: {shard id: row numbers}.

    Reads the 64-bit hashes of all keys once. Those of more than a million rows are spilled by their range into
    temporary files (16 bytes a row), so that memory holds about a million of them, or a 256th where that is more.

    Args:
        reader: Of the rows.
        shards: All of them, in corpus order.
        on_duplicate: Which row of a key counts: the ``first``, the ``last``, or none (``fail``).

    Raises:
        RunError: The folder for temporary files is full or not writable, or a key comes again and that is to ``fail``.
    """
    parts = min(_MOST_PARTS, max(1, -(-sum(shard.rows for shard in shards) // _ROWS_IN_MEMORY)))
    found = [_repeated(entries, last=on_duplicate == "last") for entries in _parted(reader, shards, parts)]
    named = _by_shard(np.sort(np.concatenate([*found, np.empty(0, np.int64)])), shards)
    if on_duplicate == "fail" and named:
        raise RunError(
            f"{_described(reader, shards, named)}; corpus.on_duplicate is fail: give each row a key of its own, or set "
            "it to first or last; nothing was committed"
        )
    return named


def _by_shard(rows: NDArray[np.int64], shards: Sequence[Shard]) -> dict[str, tuple[int, ...]]:
    """Rows of the whole corpus, sorted, as row numbers of their shards."""
    starts = np.cumsum([0, *(shard.rows for shard in shards)])
    named: dict[str, tuple[int, ...]] = {}
    for number in np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist():
        inside = rows[(rows >= starts[number]) & (rows < starts[number + 1])] - starts[number]
        named[shards[number].id] = tuple(inside.tolist())
    return named


def _described(reader: RowReader, shards: Sequence[Shard], again: Mapping[str, Sequence[int]]) -> str:
    """The first keys that come again, with the first of their rows, found in a second pass over the hashes."""
    chosen: dict[int, list[str]] = {}
    for shard in shards:
        if shard.id in again and len(chosen) < _KEYS_NAMED:
            chosen |= {repeated: [] for repeated in reader.key_hashes(shard)[list(again[shard.id])].tolist()}
    places = {repeated: chosen[repeated] for repeated in list(chosen)[:_KEYS_NAMED]}
    names: dict[int, str | None] = {}
    for shard, hashes in zip(shards, _all_hashes(reader, shards), strict=True):
        rows = np.flatnonzero(np.isin(hashes, np.array(list(places), np.uint64))).tolist()
        keys = reader.keys(shard) if rows else []
        for row in rows:
            names[int(hashes[row])] = keys[row]
            places[int(hashes[row])].append(f"{shard.source}#{shard.start + row}")
    lines = []
    for repeated, rows_of_key in places.items():
        shown = [*rows_of_key[:_ROWS_NAMED], *["..."] * (len(rows_of_key) > _ROWS_NAMED)]
        lines.append(f"{names[repeated]!r} ({', '.join(shown)})")
    return f"{counted(sum(map(len, again.values())), 'row')} with the key of an earlier row, such as {'; '.join(lines)}"


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


def _all_hashes(reader: RowReader, shards: Sequence[Shard]) -> Iterator[NDArray[np.uint64]]:
    """Those of each shard, in order; some shards are read ahead."""
    return read_ahead(reader.key_hashes, shards, threads=_THREADS, ahead=2 * _THREADS)


def _entries(reader: RowReader, shards: Sequence[Shard]) -> Iterator[Entries]:
    """Those of each shard, in order."""
    start = 0
    for hashes in _all_hashes(reader, shards):
        entries = np.empty(len(hashes), _ENTRY)
        entries["hash"], entries["row"] = hashes, np.arange(start, start + len(hashes))
        start += len(hashes)
        yield entries[hashes != _hashes_of_no_key(len(hashes))]


@lru_cache(maxsize=4)
def _hashes_of_no_key(rows: int) -> NDArray[np.uint64]:
    """What each row of a shard is hashed to where it has no key; such a row repeats none."""
    return hash_keys([None] * rows)


def _repeated(entries: Entries, *, last: bool) -> NDArray[np.int64]:
    """Rows whose key an earlier row has or, where the ``last`` counts, a later one."""
    order = np.argsort(entries["hash"], kind="stable")
    ordered = entries["hash"][order]
    place = order[:-1] if last else order[1:]
    left_out: NDArray[np.int64] = entries["row"][place[ordered[1:] == ordered[:-1]]]
    return left_out
