"""Which contents an output holds vectors of: sorted files of digests, mapped into memory where they are read.

Beside the embedding files, ``embeddings/.digests/<encoding>/`` holds Arrow files of entries (digest, file, row), sorted
by digest. An encoding is all that a vector depends on beside its input. The files are made from the embedding
files at any time, so a damaged or missing one is no loss; what they name may be gone or changed by the time it is read.
"""

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.errors import RunError
from barycenter.infra.clock import current_clock
from barycenter.infra.storage.storage import MissingFileError, Storage

FOLDER = "embeddings/.digests"

ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("file", "<u4"), ("row", "<u4")])
"""The two halves of a digest, and where its vector is: a file by its place in the list, and the row in it."""

Entries: TypeAlias = NDArray[np.void]

GROUP = 16_384
"""Entries in a record batch, 384 KiB."""

SORTED_AT_ONCE = 1 << 22
"""Entries held in memory while files are made or merged; an entry is sorted in some 80 bytes."""

MOST_FILES = 8
"""More index files than this are merged to one."""

_ABOUT = b"barycenter"
_READERS = 16
_SUFFIX = ".arrow"


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """An embedding file that an index knows.

    Attributes:
        path: Relative to its output.
        root: The output, where it is another than the index's; else empty.
        rows: How many it holds.
        about: What its writer noted about it.
    """

    path: str
    root: str = ""
    rows: int = 0
    about: dict[str, Any] = field(default_factory=dict)


def is_index(path: str) -> bool:
    """Whether a file of the output belongs to an index.

    >>> is_index("embeddings/.digests/e1/a.parquet"), is_index("embeddings/text/e1/a.parquet")
    (True, False)
    """
    return path.startswith(f"{FOLDER}/")


def content_digest(*parts: bytes) -> bytes:
    """16 bytes of BLAKE2b; of several parts, of their sequence.

    Among 10^9 contents, two share a digest by chance with a probability of 10^-21 (the birthday bound n^2 / 2^129).

    >>> content_digest(b"a") == content_digest(b"a"), content_digest(b"a", b"b") == content_digest(b"ab")
    (True, False)
    """
    if len(parts) == 1:
        return hashlib.blake2b(parts[0], digest_size=16).digest()
    digests = b"".join(hashlib.blake2b(part, digest_size=16).digest() for part in parts)
    return hashlib.blake2b(digests, digest_size=16, person=b"parts").digest()


def value_digest(value: str | bytes) -> bytes:
    """Of one value as the encoder gets it: a text, or the encoded bytes of a picture."""
    return content_digest(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)


def to_entries(digests: pa.Array, file: int = 0) -> Entries:
    """Entries of the digests that are not null, each with its row.

    Args:
        digests: (n,) ``fixed_size_binary(16)``.
        file: Place of their file in the list.
    """
    valid = np.flatnonzero(digests.is_valid().to_numpy(zero_copy_only=False))
    data = np.frombuffer(digests.buffers()[1] or b"", np.dtype([("high", ">u8"), ("low", ">u8")]))
    data = data[digests.offset : digests.offset + len(digests)]
    entries = np.empty(len(valid), ENTRY)
    entries["high"], entries["low"] = data["high"][valid], data["low"][valid]
    entries["file"], entries["row"] = file, valid
    return entries


def sort_entries(entries: Entries) -> Entries:
    """By the high half of the digest; equal ones stay in order."""
    return entries[np.argsort(entries["high"], kind="stable")]


class IndexFile:
    """One sorted file of entries, mapped into memory: what is not looked at is not read.

    Raises:
        RunError: It is damaged.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self.storage, self.path = storage, path
        try:
            self._reader = pa.ipc.open_file(storage.mapped(path))
            about = json.loads(self._reader.schema.metadata[_ABOUT])
        except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{storage.uri(path)} is no whole index of digests ({error}); delete it, the next run makes it again"
            ) from error
        self.files = [IndexedFile(**each) for each in about["files"]]
        self.replaces: list[str] = about["replaces"]
        self.groups: int = self._reader.num_record_batches
        self.first = np.array([self.group(number)["high"][0] for number in range(self.groups)], np.uint64)
        self.rows = (self.groups - 1) * GROUP + len(self.group(self.groups - 1)) if self.groups else 0

    def group(self, number: int) -> Entries:
        """One group of entries."""
        column = self._reader.get_batch(number).column(0)
        return np.frombuffer(column.buffers()[1], ENTRY)[column.offset : column.offset + len(column)]

    def find(self, wanted: Entries, usable: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
        """(row of ``wanted``, file, row in it) of each digest that has an entry in a file that is usable.

        A digest may come twice, where its entries lie on both sides of a group's edge.

        Args:
            wanted: Sorted.
            usable: Of each file of the list, whether it may be named.
        """
        if not len(self.first) or not usable.any():
            return
        begin = np.maximum(np.searchsorted(self.first, wanted["high"], side="left") - 1, 0)
        last = np.searchsorted(self.first, wanted["high"], side="right") - 1
        spans = np.unique(np.stack([begin, last]), axis=1).T.tolist()
        for number in sorted({number for low, high in spans for number in range(low, high + 1)}):
            group = self.group(number)
            group = group if usable.all() else group[usable[group["file"]]]
            places = matching(group, wanted[(begin <= number) & (number <= last)])
            for each, row in zip(group[list(places.values())].tolist(), places, strict=True):
                yield row, each[2], each[3]


def matching(entries: Entries, wanted: Entries) -> dict[int, int]:
    """By row of ``wanted``, the place in ``entries`` of one with its digest, if there is one; both are sorted."""
    starts = np.searchsorted(entries["high"], wanted["high"], side="left")
    found: dict[int, int] = {}
    candidates = np.flatnonzero(starts < len(entries))
    same = entries["high"][starts[candidates]] == wanted["high"][candidates]
    for place in candidates[same].tolist():
        start = int(starts[place])
        while start < len(entries) and entries["high"][start] == wanted["high"][place]:
            if entries["low"][start] == wanted["low"][place]:
                found[int(wanted["row"][place])] = start
                break
            start += 1
    return found


def matches(entries: Entries, wanted: Entries) -> dict[int, int]:
    """By row of ``wanted``, the row that ``entries`` names for its digest, if any; both are sorted."""
    places = matching(entries, wanted)
    return dict(zip(places, entries["row"][list(places.values())].tolist(), strict=True))


class DigestIndex:
    """All index files of one encoding.

    Args:
        storage: The output.
        encoding: What the vectors depend on beside their input.
    """

    def __init__(self, storage: Storage, encoding: str) -> None:
        self.storage, self._folder = storage, f"{FOLDER}/{encoding}"
        paths = sorted(path for path in storage.walk(self._folder) if path.endswith(_SUFFIX))
        opened = {path: IndexFile(storage, path) for path in paths}
        replaced = {path for file in opened.values() for path in file.replaces}
        self.superseded = sorted(replaced & opened.keys())
        self._files = [file for path, file in sorted(opened.items(), reverse=True) if path not in replaced]
        self._gone: set[tuple[str, str]] = set()

    @classmethod
    def open(cls, storage: Storage, encoding: str) -> "DigestIndex":
        """The index; one that is damaged is deleted, so that it is made again."""
        try:
            return cls(storage, encoding)
        except MissingFileError:
            raise
        except (RunError, ValueError, KeyError, TypeError):
            storage.remove(list(storage.walk(f"{FOLDER}/{encoding}")))
            return cls(storage, encoding)

    @property
    def paths(self) -> list[str]:
        """The index files."""
        return [file.path for file in self._files]

    @property
    def rows(self) -> int:
        """Entries in all."""
        return sum(file.rows for file in self._files)

    def files(self) -> dict[tuple[str, str], IndexedFile]:
        """Every embedding file that is indexed, by root and path."""
        return {(each.root, each.path): each for file in reversed(self._files) for each in file.files}

    def forget(self, file: IndexedFile) -> None:
        """Leaves a file out from now on: it is gone, or was changed."""
        self._gone.add((file.root, file.path))

    def find(self, digests: pa.Array, without: Container[tuple[str, str]] = ()) -> dict[int, tuple[IndexedFile, int]]:
        """Where the vectors of digests are, by place; the newest index file that knows one decides.

        Args:
            digests: (n,) ``fixed_size_binary(16)``.
            without: Files that are not asked for, by root and path.
        """
        wanted = sort_entries(to_entries(digests))
        found: dict[int, tuple[IndexedFile, int]] = {}
        for file in self._files:
            places = [(each.root, each.path) for each in file.files]
            usable = np.array([place not in self._gone and place not in without for place in places], bool)
            for place, number, row in file.find(wanted, usable):
                found.setdefault(place, (file.files[number], row))
            wanted = wanted[~np.isin(wanted["row"], list(found))]
        return found

    def add(self, files: Iterable[tuple[IndexedFile, Sequence[pa.Array]]]) -> None:
        """Indexes the digests of embedding files, a bounded number of entries at a time."""
        held: list[Entries] = []
        listed: list[IndexedFile] = []
        for file, columns in files:
            held += [to_entries(column, len(listed)) for column in columns]
            listed.append(file)
            if sum(map(len, held)) >= SORTED_AT_ONCE:
                self._write(listed, held)
                held, listed = [], []
        if listed:
            self._write(listed, held)

    def merge(self, exists: Callable[[IndexedFile], bool]) -> None:
        """Merges all index files to one, without the entries of embedding files that are gone."""
        merged, numbers = _merged_files(self._files, exists)
        paths = self.paths
        if not paths:
            return
        pieces = 1 + self.rows // SORTED_AT_ONCE
        edges = [round(part * 2**64 / pieces) for part in range(pieces)] + [2**64]

        def ranges() -> Iterator[Entries]:
            for low, high in pairwise(edges):
                parts = [_renumbered(file, low, high, known) for file, known in zip(self._files, numbers, strict=True)]
                yield sort_entries(np.concatenate(parts))

        made = self._path()
        write_entries(self.storage, made, merged, ranges(), paths)
        self.storage.remove([*paths, *self.superseded])
        self._files, self.superseded = [IndexFile(self.storage, made)], []

    def _write(self, files: Sequence[IndexedFile], entries: Sequence[Entries]) -> None:
        path = self._path()
        write_entries(self.storage, path, files, [sort_entries(np.concatenate(entries))], [])
        self._files.insert(0, IndexFile(self.storage, path))

    def _path(self) -> str:
        """Of the next index file: names grow."""
        last = max((int(path.rpartition("/")[2].partition("-")[0]) for path in self.paths), default=0)
        return f"{self._folder}/{last + 1:08d}-{current_clock().token(4)}{_SUFFIX}"


def _merged_files(
    files: Sequence[IndexFile], exists: Callable[[IndexedFile], bool]
) -> tuple[list[IndexedFile], list[NDArray[np.int64]]]:
    """One list of those that are there, and the number of each file of each list in it, -1 where it is gone."""
    places: dict[tuple[str, str], int] = {}
    merged: list[IndexedFile] = []
    numbers = []
    for file in files:
        known = np.full(len(file.files), -1, np.int64)
        for number, each in enumerate(file.files):
            if (each.root, each.path) in places or not exists(each):
                continue  # a file that two lists hold was indexed again, because it was changed
            known[number] = places[each.root, each.path] = len(merged)
            merged.append(each)
        numbers.append(known)
    return merged, numbers


def _renumbered(file: IndexFile, low: int, high: int, numbers: NDArray[np.int64]) -> Entries:
    """Entries of digests from ``low`` to below ``high``, of files that have a number."""
    begin = max(int(np.searchsorted(file.first, np.uint64(low), side="left")) - 1, 0)
    end = int(np.searchsorted(file.first, np.uint64(high - 1), side="right"))
    parts = [np.empty(0, ENTRY)]
    for number in range(begin, end):
        group = file.group(number)
        start = np.searchsorted(group["high"], np.uint64(low))
        stop = np.searchsorted(group["high"], np.uint64(high - 1), side="right")
        part = group[start:stop].copy()
        known = numbers[part["file"].astype(np.int64)]
        part = part[known >= 0]
        part["file"] = known[known >= 0]
        parts.append(part)
    return np.concatenate(parts)


def write_entries(
    storage: Storage, path: str, files: Sequence[IndexedFile], sorted_parts: Iterable[Entries], replaces: Sequence[str]
) -> None:
    """Writes an index file.

    Args:
        storage: The output.
        path: Of the file.
        files: The embedding files that entries name by their place.
        sorted_parts: Entries; sorted, and each part behind the one before.
        replaces: Paths of the index files that hold nothing else.
    """
    about = {"files": [asdict(each) for each in files], "replaces": list(replaces)}
    field = pa.field("entry", pa.binary(ENTRY.itemsize), nullable=False)
    schema = pa.schema([field], {_ABOUT: json.dumps(about)})
    with storage.writing(path) as stream, pa.ipc.new_file(stream, schema) as writer:
        for part in _in_groups(sorted_parts):
            data = pa.py_buffer(np.ascontiguousarray(part, ENTRY))
            writer.write_batch(pa.record_batch([pa.Array.from_buffers(field.type, len(part), [None, data])], schema))


def _in_groups(parts: Iterable[Entries]) -> Iterator[Entries]:
    """The same entries in groups of :data:`GROUP`, the last smaller."""
    left = np.empty(0, ENTRY)
    for part in parts:
        left = np.concatenate([left, part])
        whole = len(left) // GROUP * GROUP
        for start in range(0, whole, GROUP):
            yield left[start : start + GROUP]
        left = left[whole:]
    if len(left):
        yield left


def update_index(
    index: DigestIndex,
    listed: Iterable[IndexedFile],
    read: Callable[[IndexedFile], tuple[IndexedFile, Sequence[pa.Array]] | None],
    changed: Container[str] = (),
) -> None:
    """Brings an index up to what is there.

    Args:
        index: Of the output.
        listed: Every embedding file that it should know.
        read: A file with what its writer noted, and its digests; None where it has none of this encoding, or is gone.
        changed: Paths of the files of this output that were made again since they were indexed.
    """
    index.storage.remove(index.superseded)
    there = {(file.root, file.path): file for file in listed}
    known = index.files()
    missing = [file for place, file in there.items() if place not in known or (not file.root and file.path in changed)]
    with ThreadPoolExecutor(_READERS) as pool:
        batches = (missing[start : start + _READERS * 4] for start in range(0, len(missing), _READERS * 4))
        index.add(found for batch in batches for found in pool.map(read, batch) if found is not None)
    if len(index.paths) > MOST_FILES or len(known.keys() - there.keys()) > len(there):
        index.merge(lambda file: (file.root, file.path) in there)
