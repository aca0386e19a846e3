"""Rows as the later stages read them: embeddings of every input, kept columns, and the side of the split."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fusion.features import array_to_vectors
from fusion.splits import is_test, stable_hash
from infra.corpus import Corpus, Shard
from infra.ledger import embedding_path
from infra.storage import Storage
from tasks.run import TEST_FRACTION, Run


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows in corpus order.

    Attributes:
        keys: Key of each row; None where it is null.
        views: {input: (n, d) float32}, all-NaN rows where the input is missing.
        status: {input: table of key, ok, reason, detail, source}.
        kept: The kept columns.
        groups: What may not cross a split or fold.
        test: (n,) True where the row is held out.
    """

    keys: list[str | None]
    views: dict[str, NDArray[np.float32]]
    status: dict[str, pa.Table]
    kept: pa.Table
    groups: list[str | None]
    test: NDArray[np.bool_]

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

    def keys(self, shard: Shard) -> list[str | None]:
        """Keys of one shard, from the first input's embedding file."""
        name, encoder_id = next(iter(self.encoder_ids.items()))
        table = self.storage.read_table(embedding_path(name, encoder_id, shard.id), columns=["key"])
        keys: list[str | None] = table.column("key").to_pylist()
        return keys

    def read(self, shard: Shard) -> Rows:
        """All rows of one shard."""
        views: dict[str, NDArray[np.float32]] = {}
        status: dict[str, pa.Table] = {}
        for name, encoder_id in self.encoder_ids.items():
            table = self.storage.read_table(embedding_path(name, encoder_id, shard.id))
            vectors = np.array(array_to_vectors(table.column("vector")), dtype=np.float32)
            vectors[~table.column("ok").to_numpy(zero_copy_only=False).astype(bool)] = np.nan
            views[name], status[name] = vectors, table.drop_columns(["vector"])
        keys: list[str | None] = next(iter(status.values())).column("key").to_pylist()
        columns = dict.fromkeys([*self.keep, *filter(None, [self.split, self.group_by])])
        if columns:
            read = self.corpus.read(shard, list(columns))
            kept = read.select(list(self.keep))
        else:
            read = kept = pa.table({"": pa.nulls(len(keys))}).select([])
        groups = _groups(keys, read, self.group_by)
        return Rows(keys, views, status, kept, groups, _test(groups, read, self.split))

    def read_all(self, shards: Iterable[Shard]) -> Rows:
        """All rows of some shards, in order; they must fit in memory."""
        return concatenate([self.read(shard) for shard in shards])


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of several shards as one."""
    first = parts[0]
    return Rows(
        keys=[key for part in parts for key in part.keys],
        views={name: np.concatenate([part.views[name] for part in parts]) for name in first.views},
        status={name: pa.concat_tables([part.status[name] for part in parts]) for name in first.status},
        kept=pa.concat_tables([part.kept for part in parts]),
        groups=[group for part in parts for group in part.groups],
        test=np.concatenate([part.test for part in parts]),
    )


def sample_shards(shards: Sequence[Shard], rows: int) -> list[Shard]:
    """Evenly spaced shards that hold about ``rows`` rows; all of them when the corpus is smaller."""
    total = sum(shard.rows for shard in shards)
    if total <= rows:
        return list(shards)
    wanted = max(1, round(len(shards) * rows / total))
    return [shards[int(index)] for index in np.unique(np.linspace(0, len(shards) - 1, wanted).astype(int))]


def duplicates(reader: RowReader, shards: Sequence[Shard]) -> dict[str, tuple[int, ...]]:
    """Rows whose key stands in an earlier row: {shard id: row numbers}; the first row of a key is kept.

    Holds one 64-bit hash a row.
    """
    hashes = [stable_hash(_or_row(reader.keys(shard), shard)) for shard in shards]
    flat = np.concatenate(hashes)
    order = np.argsort(flat, kind="stable")
    repeated = np.zeros(len(flat), dtype=bool)
    repeated[order[1:]] = flat[order[1:]] == flat[order[:-1]]
    starts = np.cumsum([0, *(len(part) for part in hashes)])
    found = {}
    for shard, start, stop in zip(shards, starts[:-1], starts[1:], strict=True):
        rows = np.flatnonzero(repeated[start:stop])
        if len(rows):
            found[shard.id] = tuple(int(row) for row in rows)
    return found


def _or_row(keys: Sequence[str | None], shard: Shard) -> Iterator[object]:
    return (("\0", shard.id, row) if key is None else key for row, key in enumerate(keys))


def _groups(keys: list[str | None], kept: pa.Table, group_by: str | None) -> list[str | None]:
    if group_by is None:
        return keys
    values = kept.column(group_by).to_pylist()
    return [key if value is None else str(value) for key, value in zip(keys, values, strict=True)]


def _test(groups: Sequence[str | None], kept: pa.Table, split: str | None) -> NDArray[np.bool_]:
    if split is None:
        return is_test(groups, TEST_FRACTION)
    return np.array([value == "test" for value in kept.column(split).to_pylist()], dtype=bool)
