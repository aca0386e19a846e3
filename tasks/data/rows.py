"""Rows as the later stages read them: embeddings of every input, kept columns, and the part of the split."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from math import ceil
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.heads.targets import is_empty
from barycenter.fusion.splits import split_rows
from barycenter.infra.corpus import Corpus, Shard, misfits_by_row
from barycenter.infra.deadline import check_deadline
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.data.embeddings import read_embeddings
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids

_MIN_SHARDS = 64

Result = TypeVar("Result")


@dataclass(frozen=True)
class Rows:
    """Some rows in corpus order.

    Attributes:
        views: {input: (n, d) float32}, all-NaN rows where the input is missing; perhaps read-only.
        status: {input: table of key, ok, reason, detail, source and, for several values a row, count and rejects}.
        kept: The kept columns.
        split_columns: The columns that say which part of the split a row is in and what it is grouped by.
        split: Name of the split column, or None.
        group_by: Name of the group column, or None.
        misfits: {row: {column: problem}} of values of the kept columns, the others of the job and the key that do not
            fit their columns' types; they are null in the features.
        origins: For each run of rows of one source: its first row here, the source, its first row in the source.
        left_out: Rows whose key another row counts for; they are in no part of the split.
    """

    views: dict[str, NDArray[np.float32]]
    status: dict[str, pa.Table]
    kept: pa.Table
    split_columns: pa.Table
    split: str | None = None
    group_by: str | None = None
    misfits: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    origins: tuple[tuple[int, str, int], ...] = ()
    left_out: tuple[int, ...] = ()

    def origin(self, row: int) -> str | None:
        """Source and number in it, from 0, of a row: ``part.jsonl#17``."""
        at = bisect_right(self.origins, row, key=itemgetter(0)) - 1
        if at < 0:
            return None
        here, source, start = self.origins[at]
        return f"{source}#{start + row - here}"

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.key_column)

    @property
    def key_column(self) -> pa.ChunkedArray:
        """Key of each row; null where it has none."""
        return next(iter(self.status.values())).column("key")

    @cached_property
    def keys(self) -> list[str | None]:
        """Key of each row; None where it is null."""
        keys: list[str | None] = self.key_column.to_pylist()
        return keys

    @cached_property
    def groups(self) -> list[str | None]:
        """Group of each row; rows of one group are in one part of the split, and in one fold."""
        if self.group_by is None:
            return self.keys
        return group_labels(self.keys, self.split_columns.column(self.group_by).to_pylist())

    @cached_property
    def test(self) -> NDArray[np.bool_]:
        """(n,) True where the row is held out."""
        return np.asarray(self._part == "test")

    @cached_property
    def training(self) -> NDArray[np.bool_]:
        """(n,) True where the row is trained on; a split may have rows, for validation say, in neither part."""
        return np.asarray(self._part == "train")

    @cached_property
    def _part(self) -> NDArray[np.str_]:
        names = None if self.split is None else self.split_columns.column(self.split).to_pylist()
        parts = split_rows(self.groups, names)
        parts[list(self.left_out)] = ""
        return parts

    def counted(self) -> "Rows":
        """The same rows; those whose key another row counts for have no input."""
        if not self.left_out:
            return self
        views = {name: view.copy() for name, view in self.views.items()}
        for view in views.values():
            view[list(self.left_out)] = np.nan
        return replace(self, views=views)

    @property
    def train(self) -> dict[str, NDArray[np.float32]]:
        """The views of the training rows."""
        return {name: view[self.training] for name, view in self.views.items()}

    @property
    def train_groups(self) -> list[str | None]:
        """The groups of the training rows."""
        return [group for group, learned in zip(self.groups, self.training, strict=True) if learned]


def group_labels(keys: Sequence[Any], values: Iterable[object]) -> list[Any]:
    """Group of each row: the value of the group column, or the row's key where there is none.

    >>> group_labels(["k0", "k1", "k2"], ["a", None, float("nan")])
    ['a', 'k1', 'k2']
    """
    return [key if is_empty(value) else str(value) for key, value in zip(keys, values, strict=True)]


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads shards of a run anywhere; plain data that travels to workers.

    ``left_out`` are the rows whose key another row counts for, by shard id, where the reader is to know them.
    """

    corpus: Corpus
    storage: Storage
    embedding_ids: dict[str, str]
    keep: tuple[str, ...]
    split: str | None
    group_by: str | None
    left_out: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> "RowReader":
        """The reader of a run's rows."""
        train = run.job.train
        return cls(
            corpus=run.corpus,
            storage=run.storage,
            embedding_ids=embedding_ids(run),
            keep=tuple(run.job.corpus.keep),
            split=train.split if train else None,
            group_by=train.group_by if train else None,
        )

    def key_hashes(self, shard: Shard) -> NDArray[np.uint64]:
        """(n,) 64-bit hashes of the keys of one shard, from the first input's embedding file."""
        name, embedding_id = next(iter(self.embedding_ids.items()))
        table = self.storage.read_table(embedding_path(name, embedding_id, shard.id), columns=["key_hash"])
        return np.asarray(table.column("key_hash").to_numpy())

    def keys(self, shard: Shard) -> list[str | None]:
        """Keys of one shard, from the first input's embedding file."""
        name, embedding_id = next(iter(self.embedding_ids.items()))
        table = self.storage.read_table(embedding_path(name, embedding_id, shard.id), columns=["key"])
        keys: list[str | None] = table.column("key").to_pylist()
        return keys

    def read(self, shard: Shard) -> Rows:
        """All rows of a shard, or of the beginning of one."""
        views: dict[str, NDArray[np.float32]] = {}
        status: dict[str, pa.Table] = {}
        for name, embedding_id in self.embedding_ids.items():
            path = embedding_path(name, embedding_id, shard.id)
            views[name], status[name] = read_embeddings(self.storage, path, rows=shard.rows)
        split_columns = list(dict.fromkeys(filter(None, [self.split, self.group_by])))
        columns = list(dict.fromkeys([*self.keep, *split_columns]))
        rows = next(iter(status.values())).num_rows
        read = self.corpus.read(shard, columns) if columns else pa.table({"": pa.nulls(rows)})
        kept, misfits = read.select(list(self.keep)), misfits_by_row(read) if columns else {}
        origins = ((0, shard.source, shard.start),)
        left_out = tuple(row for row in self.left_out.get(shard.id, ()) if row < rows)
        return Rows(
            views, status, kept, read.select(split_columns), self.split, self.group_by, misfits, origins, left_out
        )

    def each(self, shards: Iterable[Shard]) -> Iterator[Rows]:
        """The rows of every shard, the next one read while one is worked on."""
        return read_ahead(self.read, shards, threads=1, ahead=1)

    def read_all(self, shards: Iterable[Shard]) -> Rows:
        """All rows of some shards, in order; they must fit in memory."""
        parts = []
        for shard in shards:
            check_deadline()
            parts.append(self.read(shard))
        return concatenate(parts)


def read_ahead(
    read: Callable[[Shard], Result], shards: Iterable[Shard], *, threads: int, ahead: int
) -> Iterator[Result]:
    """What is read of each shard, in order, that of ``ahead`` further ones at most read meanwhile."""
    waiting = iter(shards)
    with ThreadPoolExecutor(threads) as pool:
        futures = deque(pool.submit(read, shard) for shard in islice(waiting, ahead))
        while futures:
            done = futures.popleft().result()
            futures.extend(pool.submit(read, shard) for shard in islice(waiting, 1))
            yield done


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of several shards as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    starts = np.cumsum([0, *(part.count for part in parts)]).tolist()
    return Rows(
        {name: np.concatenate([part.views[name] for part in parts]) for name in first.views},
        {name: pa.concat_tables([part.status[name] for part in parts]) for name in first.status},
        pa.concat_tables([part.kept for part in parts]),
        pa.concat_tables([part.split_columns for part in parts]),
        first.split,
        first.group_by,
        {
            start + row: problems
            for start, part in zip(starts, parts, strict=False)
            for row, problems in part.misfits.items()
        },
        tuple(
            (begin + here, source, start)
            for begin, part in zip(starts, parts, strict=False)
            for here, source, start in part.origins
        ),
        tuple(begin + row for begin, part in zip(starts, parts, strict=False) for row in part.left_out),
    )


def regroup(parts: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """The same rows in fewer parts, each of ``rows`` rows or somewhat more."""
    held: list[Rows] = []
    for part in parts:
        held.append(part)
        if sum(each.count for each in held) >= rows:
            yield concatenate(held)
            held = []
    if held:
        yield concatenate(held)


def evenly_spaced(items: Sequence[Result], most: int) -> list[Result]:
    """At most ``most`` of the items, evenly spaced."""
    return [items[int(at)] for at in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).astype(int))]


def sample_shards(shards: Sequence[Shard], rows: int) -> list[Shard]:
    """The first rows of shards from all over the corpus, about ``rows`` rows in all; every shard if they hold no more.

    At least ``_MIN_SHARDS`` shards are drawn where there are so many, for a corpus is often in order of its labels.
    They are those that hold evenly spaced rows: among evenly spaced shards too many or too few would be the short ones
    at the ends of files.
    """
    ends = np.cumsum([shard.rows for shard in shards])
    if not len(shards) or ends[-1] <= rows:
        return list(shards)
    total = int(ends[-1])
    wanted = min(len(shards), max(_MIN_SHARDS, ceil(len(shards) * rows / total)))
    middles = (np.arange(wanted) + 0.5) * total / wanted
    chosen = [shards[int(index)] for index in np.unique(np.searchsorted(ends, middles, side="right"))]
    each = ceil(rows / len(chosen))
    return [replace(shard, stop=min(shard.stop, shard.start + each)) for shard in chosen]
