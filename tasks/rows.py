"""Rows as the later stages read them: embeddings of every input, kept columns, and the side of the split."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fusion.features import array_to_vectors
from fusion.splits import is_test
from infra.corpus import Corpus, Shard, misfits_of
from infra.ledger import embedding_path
from infra.storage import Storage
from tasks.run import TEST_FRACTION, Run

_UNREAD = ("key_hash", "source_size", "source_stamp")
_THREADS = 8
_HASHES_IN_MEMORY = 1_000_000
_MOST_PARTS = 16


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that does not fit its column's type; it is null in the features.

    Attributes:
        row: Number of the row among the rows read.
        column: Its column.
        problem: What is wrong.
        source: File and row, counted from 0.
    """

    row: int
    column: str
    problem: str
    source: str


@dataclass(frozen=True)
class Rows:
    """Some rows in corpus order.

    Attributes:
        views: {input: (n, d) float32}, all-NaN rows where the input is missing; perhaps read-only.
        status: {input: table of key, ok, reason, detail, source and, for several values a row, count and rejects}.
        kept: The kept columns.
        sides: The columns that say which side of the split a row is on and what it is grouped by.
        split: Name of the split column, or None.
        group_by: Name of the group column, or None.
        misfits: Values of the kept columns, the others of the job and the key that do not fit their columns' types.
    """

    views: dict[str, NDArray[np.float32]]
    status: dict[str, pa.Table]
    kept: pa.Table
    sides: pa.Table
    split: str | None = None
    group_by: str | None = None
    misfits: tuple[Misfit, ...] = ()

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
        """What may not cross a split or fold."""
        if self.group_by is None:
            return self.keys
        values = self.sides.column(self.group_by).to_pylist()
        return [key if value is None else str(value) for key, value in zip(self.keys, values, strict=True)]

    @cached_property
    def test(self) -> NDArray[np.bool_]:
        """(n,) True where the row is held out."""
        if self.split is None:
            return is_test(self.groups, TEST_FRACTION)
        return np.array([value == "test" for value in self.sides.column(self.split).to_pylist()], dtype=bool)

    @property
    def train(self) -> dict[str, NDArray[np.float32]]:
        """The views of the training rows."""
        return {name: view[~self.test] for name, view in self.views.items()}

    @property
    def train_groups(self) -> list[str | None]:
        """The groups of the training rows."""
        return [group for group, held in zip(self.groups, self.test, strict=True) if not held]


@dataclass(frozen=True, slots=True)
class RowReader:
    """Reads shards of a run anywhere; plain data that travels to workers."""

    corpus: Corpus
    storage: Storage
    encoder_ids: dict[str, str]
    keep: tuple[str, ...]
    split: str | None
    group_by: str | None

    @classmethod
    def of(cls, run: Run) -> "RowReader":
        """The reader of a run's rows."""
        train = run.job.train
        return cls(
            corpus=run.corpus,
            storage=run.storage,
            encoder_ids={name: run.encoders[name].encoder_id for name in run.inputs},
            keep=tuple(run.job.corpus.keep),
            split=train.split if train else None,
            group_by=train.group_by if train else None,
        )

    def key_hashes(self, shard: Shard) -> NDArray[np.uint64]:
        """(n,) 64-bit hashes of the keys of one shard, from the first input's embedding file."""
        name, encoder_id = next(iter(self.encoder_ids.items()))
        table = self.storage.read_table(embedding_path(name, encoder_id, shard.id), columns=["key_hash"])
        return np.asarray(table.column("key_hash").to_numpy())

    def read(self, shard: Shard) -> Rows:
        """All rows of one shard."""
        views: dict[str, NDArray[np.float32]] = {}
        status: dict[str, pa.Table] = {}
        for name, encoder_id in self.encoder_ids.items():
            with self.storage.parquet(embedding_path(name, encoder_id, shard.id)) as file:
                columns = [column for column in file.schema_arrow.names if column not in _UNREAD]
                table = file.read(columns=columns, use_threads=False)
            views[name] = _present(array_to_vectors(table.column("vector")), table.column("ok"))
            status[name] = table.drop_columns(["vector"])
        sides = list(dict.fromkeys(filter(None, [self.split, self.group_by])))
        columns = list(dict.fromkeys([*self.keep, *sides]))
        rows = next(iter(status.values())).num_rows
        read = self.corpus.read(shard, columns) if columns else pa.table({"": pa.nulls(rows)})
        kept, misfits = read.select(list(self.keep)), _misfits(read, shard) if columns else ()
        return Rows(views, status, kept, read.select(sides), self.split, self.group_by, misfits)

    def each(self, shards: Iterable[Shard]) -> Iterator[Rows]:
        """The rows of every shard, the next one read while one is worked on."""
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Rows] | None = None
            for shard in shards:
                following = pool.submit(self.read, shard)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def read_all(self, shards: Iterable[Shard]) -> Rows:
        """All rows of some shards, in order; they must fit in memory."""
        return concatenate([self.read(shard) for shard in shards])


def _misfits(table: pa.Table, shard: Shard) -> tuple[Misfit, ...]:
    return tuple(
        Misfit(row, column, problem, f"{shard.source}#{shard.start + row}")
        for row, problems in misfits_of(table).items()
        for column, problem in problems.items()
    )


def _present(vectors: NDArray[np.float32], ok: pa.ChunkedArray) -> NDArray[np.float32]:
    good = ok.to_numpy().astype(bool)
    if good.all():
        return vectors
    vectors = np.array(vectors)
    vectors[~good] = np.nan
    return vectors


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
        pa.concat_tables([part.sides for part in parts]),
        first.split,
        first.group_by,
        tuple(
            replace(misfit, row=start + misfit.row)
            for start, part in zip(starts, parts, strict=False)
            for misfit in part.misfits
        ),
    )


def gathered(parts: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """The same rows in fewer parts, each of ``rows`` rows or somewhat more."""
    held: list[Rows] = []
    for part in parts:
        held.append(part)
        if sum(each.count for each in held) >= rows:
            yield concatenate(held)
            held = []
    if held:
        yield concatenate(held)


def sample_shards(shards: Sequence[Shard], rows: int) -> list[Shard]:
    """Shards that hold about ``rows`` rows, those of evenly spaced rows; all of them when the corpus is smaller.

    Evenly spaced shards would not do: a short one at the end of every file comes as regularly.
    """
    ends = np.cumsum([shard.rows for shard in shards])
    if not len(shards) or ends[-1] <= rows:
        return list(shards)
    wanted = max(1, round(len(shards) * rows / int(ends[-1])))
    middles = (np.arange(wanted) + 0.5) * ends[-1] / wanted
    return [shards[int(index)] for index in np.unique(np.searchsorted(ends, middles, side="right"))]


def duplicates(reader: RowReader, shards: Sequence[Shard]) -> dict[str, tuple[int, ...]]:
    """Rows whose key stands in an earlier row: {shard id: row numbers}; the first row of a key is kept.

    Reads the 64-bit hashes of all keys once for each part of their range, so that memory holds a million of them, or a
    sixteenth where that is more.
    """
    total = sum(shard.rows for shard in shards)
    parts = min(_MOST_PARTS, -(-total // _HASHES_IN_MEMORY))
    found: list[int] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for part in range(parts):
            places, hashes = [], []
            start = 0
            for shard, values in zip(shards, pool.map(reader.key_hashes, shards), strict=True):
                chosen = np.flatnonzero(values % np.uint64(parts) == part)
                places.append(chosen + start)
                hashes.append(values[chosen])
                start += shard.rows
            found += _repeated(np.concatenate(places), np.concatenate(hashes))
    starts = np.cumsum([0, *(shard.rows for shard in shards)])
    rows = np.sort(np.array(found, np.int64))
    named: dict[str, tuple[int, ...]] = {}
    for number in np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist():
        inside = rows[(rows >= starts[number]) & (rows < starts[number + 1])] - starts[number]
        named[shards[number].id] = tuple(inside.tolist())
    return named


def _repeated(places: NDArray[np.int64], hashes: NDArray[np.uint64]) -> list[int]:
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again: list[int] = places[order[1:][ordered[1:] == ordered[:-1]]].tolist()
    return again
