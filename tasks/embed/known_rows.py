"""Rows that an encoder has seen: found by digest in the files that it wrote, and taken over from there."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import array_to_vectors
from barycenter.fusion.errors import Reason, RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.digest_index import DigestIndex, Entries, IndexedFile, matches, sort_entries, to_entries
from barycenter.tasks.run.row_digests import DIGEST

_TRIED = 16
"""Digests of a shard that are looked up first: the files that they lead to are likely to know the others, too."""

_FEW = 64
_ROUNDS = 8
_KEPT_BYTES = 512 << 20
_REMEMBERED = 1 << 19
"""Digests of this run that a worker remembers, in some 100 MiB."""

MISSING = (str(Reason.NULL), str(Reason.EMPTY))
"""Reasons of rows without a value; others are rejects."""

COLUMNS = ("vector", "ok", "digest", "seen", "count", "rejects")
"""What is read of an embedding file."""


@dataclass(slots=True)
class KnownFile:
    """The rows of one embedding file.

    Attributes:
        vectors: (n, d).
        counts: (n,) values that each vector is the mean of.
        digests: (n,) of the rows that may be taken over, null for others.
        entries: Digests and what pictures were seen as, sorted.
        mine: Whether it was written in this run.
    """

    vectors: NDArray[np.float32]
    counts: NDArray[np.int32]
    digests: pa.Array
    entries: Entries
    mine: bool = False

    @classmethod
    def of(cls, table: pa.Table, *, mine: bool = False) -> "KnownFile":
        """Of an embedding file's table; rows that are not ok, or have a bad value, are not taken over."""
        good = table.column("ok").to_numpy().astype(bool)
        if "rejects" in table.column_names:
            good &= table.column("rejects").is_null().to_numpy()
        counts = table.column("count").to_numpy() if "count" in table.column_names else np.ones(len(good), np.int32)
        digests, seen = (_only(table.column(name), good) for name in ("digest", "seen"))
        entries = sort_entries(np.concatenate([to_entries(digests), to_entries(seen)]))
        return cls(array_to_vectors(table.column("vector")), counts, digests, entries, mine)


@dataclass(slots=True)
class Found:
    """Where rows were found.

    Attributes:
        files: By a number of its own, each file.
        places: By row: number of the file, and the row in it.
    """

    files: list[KnownFile] = field(default_factory=list)
    places: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, file: KnownFile, pairs: Mapping[int, int]) -> None:
        """Rows of one file, unless they were found before."""
        new = {row: there for row, there in pairs.items() if row not in self.places}
        if new:
            self.places.update({row: (len(self.files), there) for row, there in new.items()})
            self.files.append(file)

    def extend(self, other: "Found") -> None:
        """Rows that were found elsewhere, none of them here."""
        self.places |= {row: (len(self.files) + number, there) for row, (number, there) in other.places.items()}
        self.files += other.files

    def digest(self, row: int) -> bytes:
        """What the row's content is known by."""
        number, there = self.places[row]
        digest: bytes = self.files[number].digests[there].as_py()
        return digest

    def is_mine(self, row: int) -> bool:
        """Whether the row's vector was made in this run."""
        return self.files[self.places[row][0]].mine

    def copy(self, vectors: NDArray[np.float32], counts: NDArray[np.int32]) -> None:
        """Writes vectors and counts of the rows that were found into arrays of all rows."""
        by_file: dict[int, list[tuple[int, int]]] = {}
        for row, (number, there) in self.places.items():
            by_file.setdefault(number, []).append((row, there))
        for number, pairs in by_file.items():
            file, (rows, places) = self.files[number], np.array(pairs).T
            vectors[rows], counts[rows] = file.vectors[places], file.counts[places]


class KnownRows:
    """What a worker can take over: rows of the index, and those that it embedded itself in this run.

    A worker waits for no other: two of them that meet new rows of one content at the same time both encode it.

    Args:
        storage: The output.
        encoding: What the vectors depend on beside their input.
        folder: Of the input's embedding files.
    """

    def __init__(self, storage: Storage, encoding: str, folder: str) -> None:
        self._storage = storage
        self._index = DigestIndex(storage, encoding)
        mine = [file for file in self._index.files().values() if file.path.rpartition("/")[0] == folder]
        self._shards = {file.about["raw"]: file for file in mine if file.about.get("raw") is not None}
        self._stores: dict[str, Storage] = {"": storage}
        self._files: OrderedDict[tuple[str, str], KnownFile] = OrderedDict()
        self._bytes = 0
        self._mine: OrderedDict[bytes, str] = OrderedDict()
        self._written: set[tuple[str, str]] = set()
        self._lock = threading.RLock()

    @property
    def indexed(self) -> bool:
        """Whether anything was embedded before this run."""
        return self._index.rows > 0

    @property
    def any(self) -> bool:
        """Whether anything could be found."""
        return self.indexed or bool(self._mine)

    def shard(self, raw: str, rows: int) -> pa.Table | None:
        """The embedding file of a shard whose rows were read from the same bytes; None where it cannot be taken over.

        Args:
            raw: Digest of those bytes.
            rows: Rows of the shard.
        """
        file = self._shards.get(raw)
        if file is None:
            return None
        try:
            table = self._store(file.root).read_table(file.path)
            good = set(table.column("reason").unique().to_pylist()) <= {None, *MISSING}
            whole = "rejects" not in table.column_names or table.column("rejects").null_count == rows
            return table if table.num_rows == rows and good and whole else None
        except (RunError, KeyError, ValueError):
            return None

    def find(self, digests: Sequence[bytes | None]) -> Found:
        """Where the vectors of these rows are."""
        with self._lock:
            found = Found()
            self._find_mine(digests, found)
            if self.indexed:
                self._find_indexed(pa.array(digests, DIGEST), found)
            return found

    def remember(self, path: str, table: pa.Table) -> None:
        """Takes note of a shard that was embedded in this run."""
        with self._lock:
            self._written.add(("", path))
            self._keep(("", path), KnownFile.of(table, mine=True))
            for column in ("digest", "seen"):
                self._mine.update({digest: path for digest in table.column(column).to_pylist() if digest is not None})
            while len(self._mine) > _REMEMBERED:
                self._mine.popitem(last=False)

    def _find_mine(self, digests: Sequence[bytes | None], found: Found) -> None:
        paths = {self._mine[digest] for digest in digests if digest is not None and digest in self._mine}
        for path in sorted(paths):
            self._match(IndexedFile(path), pa.array(digests, DIGEST), found)

    def _find_indexed(self, digests: pa.Array, found: Found) -> None:
        """A few digests lead to files that are matched as a whole; once that finds little, the others are looked up."""
        tried: set[tuple[str, str]] = set()
        few = True
        while left := self._left(digests, found):
            step = max(1, len(left) // _TRIED) if few and len(left) > _FEW else 1
            places = self._index.find(digests.take(pa.array(left[::step])), without=tried)
            for file in {(file.root, file.path): file for file, _ in places.values()}.values():
                self._match(file, digests, found)
                tried.add((file.root, file.path))
            if not places and step == 1:
                break
            few = len(left) - len(self._left(digests, found)) > len(left) // _TRIED

    @staticmethod
    def _left(digests: pa.Array, found: Found) -> list[int]:
        valid = np.flatnonzero(digests.is_valid().to_numpy(zero_copy_only=False)).tolist()
        return [row for row in valid if row not in found.places]

    def _match(self, file: IndexedFile, digests: pa.Array, found: Found) -> None:
        """Finds rows in a file, whatever the index says of it."""
        known = self._open(file)
        if known is not None:
            left = _only(digests, _mask(self._left(digests, found), len(digests)))
            found.add(known, matches(known.entries, sort_entries(to_entries(left))))

    def _open(self, file: IndexedFile) -> KnownFile | None:
        """The rows of a file; None where it is gone or damaged, which is nobody's loss."""
        place = (file.root, file.path)
        if place in self._files:
            self._files.move_to_end(place)
            return self._files[place]
        try:
            with self._store(file.root).parquet(file.path) as opened:
                there = set(opened.schema_arrow.names)
                table = opened.read(columns=[name for name in COLUMNS if name in there], use_threads=False)
            known = KnownFile.of(table, mine=place in self._written)
        except (RunError, KeyError, ValueError):
            self._index.forget(file)
            return None
        self._keep(place, known)
        return known

    def _store(self, root: str) -> Storage:
        if root not in self._stores:
            self._stores[root] = Storage(root, self._storage.endpoint_url)
        return self._stores[root]

    def _keep(self, place: tuple[str, str], file: KnownFile) -> None:
        if place in self._files:
            self._bytes -= self._files.pop(place).vectors.nbytes
        self._files[place] = file
        self._bytes += file.vectors.nbytes
        while self._bytes > _KEPT_BYTES and len(self._files) > 1:
            self._bytes -= self._files.popitem(last=False)[1].vectors.nbytes


def _only(column: pa.Array | pa.ChunkedArray, keep: NDArray[np.bool_]) -> pa.Array:
    """A column of digests, null where not kept."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.compute.if_else(pa.array(keep), column, pa.scalar(None, DIGEST))


def _mask(rows: Sequence[int], n: int) -> NDArray[np.bool_]:
    mask = np.zeros(n, bool)
    mask[list(rows)] = True
    return mask
