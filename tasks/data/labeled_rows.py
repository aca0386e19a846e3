"""Labeled rows of a fused data set: how many there are, which of them a head learns from, and the rows themselves."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from barycenter.fusion.alignment import Alignment
from barycenter.fusion.dataset.schema import FeatureFile, Manifest, array_to_vectors, partition_scalar
from barycenter.fusion.errors import JobError
from barycenter.fusion.heads.labels import Reading, TargetError, class_notes, find_reading, with_counts
from barycenter.fusion.splits import split_rows, stable_hash
from barycenter.infra.deadline import check_deadline
from barycenter.infra.job.models import TrainJob
from barycenter.infra.storage import Storage
from barycenter.tasks.data.aligned_vectors import AlignedRows
from barycenter.tasks.data.embeddings import Vectors
from barycenter.tasks.data.rows import group_labels
from barycenter.tasks.data.targets import split_notes

MOST_ROWS = 500_000
"""Labeled rows that a head is trained and tested on; of more, so many are drawn by a hash of their keys."""

_MOST_CLASSES = 1_000_000
_SALT = "labelled"


@dataclass(frozen=True, slots=True)
class LabeledRows:
    """Labeled rows of the feature files that are trained on or tested, in their order.

    Attributes:
        keys: Their keys.
        fused: (n, dim).
        aligned: ``{input: (n, dim)}``, NaN where it is missing; for a head that reads only which inputs there are,
            (n, 1).
        target: (n,) labels.
        groups: What no split divides.
        test: (n,) held-out rows.
    """

    keys: list[str]
    fused: Vectors
    aligned: dict[str, Vectors]
    target: NDArray[Any]
    groups: list[str]
    test: NDArray[np.bool_]

    def take(self, mask: NDArray[np.bool_]) -> "LabeledRows":
        """The rows under a mask."""
        rows = np.flatnonzero(mask)
        return LabeledRows(
            [self.keys[row] for row in rows],
            self.fused[rows],
            {name: values[rows] for name, values in self.aligned.items()},
            self.target[rows],
            [self.groups[row] for row in rows],
            self.test[rows],
        )


@dataclass(frozen=True)
class Survey:
    """What the columns of the target and the split hold over a whole data set.

    Attributes:
        target: How the target is read.
        parts: Labeled rows by part of the split: train, test, other.
        classes: Different labels among the training rows, counted up to a million.
        left_out: Values of the target that are there but are no labels.
        split: Name of the split column, or None.
        names: Values of the split column among labeled rows.
    """

    target: Reading
    parts: Counter[str]
    classes: int
    left_out: Counter[str]
    split: str | None
    names: Counter[str]

    @property
    def share(self) -> float:
        """The share of the labeled rows that is used."""
        used = self.parts["train"] + self.parts["test"]
        return min(1.0, MOST_ROWS / used) if used else 1.0

    @property
    def learnable(self) -> bool:
        """Whether training rows have two different labels."""
        return self.classes > 1

    def facts(self) -> dict[str, Any]:
        """What metrics.json says of the rows."""
        left_out = dict(self.left_out.most_common(20))
        facts = {"task": self.target.task, "labelled": dict(self.parts), "left_out": left_out}
        return facts | {"n_train": 0, "n_test": 0, "notes": self.notes()}

    def notes(self) -> list[str]:
        """Sentences for a user."""
        column, notes = self.target.column, []
        if not self.learnable:
            why = f"all have the same `{column}`" if self.parts["train"] else f"none has a `{column}`"
            notes.append(f"no head was trained: of the training rows {why}; there is nothing to learn")
        elif self.target.task == "classification":
            notes += class_notes(column, self.classes, self.parts["train"])
        if self.left_out:
            notes.append(f"train.target: rows whose `{column}` is no label are left out: {with_counts(self.left_out)}")
        if self.split is not None and self.learnable:
            notes += split_notes(self.split, self.names)
        if self.share < 1:
            used = self.parts["train"] + self.parts["test"]
            notes.append(f"the head saw {MOST_ROWS:,} of {used:,} labeled rows, drawn by a hash of their keys")
        return notes


def survey(storage: Storage, manifest: Manifest, train: TrainJob, target: Reading | None = None) -> Survey:
    """Reads the columns of the target and the split once, without the vectors; by default its values say how.

    Raises:
        JobError: On ``train.target``: no head can learn it.
    """
    columns = [column for column in (train.target, train.split, train.group_by) if column is not None]
    if target is None:
        target = _reading(storage, manifest, train)
    parts: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    names: Counter[str] = Counter()
    seen: set[str] = set()
    for file in manifest.files:
        table = read_file(storage, manifest, file, [manifest.key, *columns])
        values = table.column(train.target).to_pylist()
        labels = target.labels(values)
        left_out.update(target.left_out(values))
        part_of = part_of_split(table, manifest, train)
        labeled = [row for row, label in enumerate(labels) if label is not None]
        parts.update(str(part_of[row]) for row in labeled)
        if train.split is not None:
            split = table.column(train.split).to_pylist()
            names.update("" if split[row] is None else str(split[row]) for row in labeled)
        if len(seen) < _MOST_CLASSES:
            seen.update(repr(labels[row]) for row in labeled if part_of[row] == "train")
    return Survey(target, parts, len(seen), left_out, train.split, names)


def read_labeled(storage: Storage, manifest: Manifest, train: TrainJob, chosen: Survey) -> LabeledRows:
    """Labeled rows of the feature files, in order, with what the head reads besides the fused vectors.

    Of more than :data:`MOST_ROWS` those are taken whose key's hash is lowest, so that every file has its share.
    """
    parts: list[LabeledRows] = []
    columns = [column for column in (train.target, train.split, train.group_by) if column is not None]
    reader = HeadInputs(storage, manifest, train.head)
    for file in manifest.files:
        table = read_file(storage, manifest, file, [manifest.key, "fused", *columns, *reader.columns])
        keys = table.column(manifest.key).to_pylist()
        target = np.empty(table.num_rows, dtype=object)
        target[:] = chosen.target.labels(table.column(train.target).to_pylist())
        part_of = part_of_split(table, manifest, train)
        used = np.array([label is not None for label in target], dtype=bool) & (part_of != "other")
        if chosen.share < 1:
            used &= stable_hash(keys, _SALT) < np.uint64(chosen.share * 2.0**64)
        fused = np.asarray(array_to_vectors(table.column("fused")), dtype=np.float32)
        part = LabeledRows(keys, fused, reader.of(table), target, _groups(table, manifest, train), part_of == "test")
        parts.append(part.take(used))
    return _joined(parts)


def _joined(parts: list[LabeledRows]) -> LabeledRows:
    return LabeledRows(
        [key for part in parts for key in part.keys],
        np.concatenate([part.fused for part in parts]),
        {name: np.concatenate([part.aligned[name] for part in parts]) for name in parts[0].aligned},
        np.concatenate([part.target for part in parts]),
        [group for part in parts for group in part.groups],
        np.concatenate([part.test for part in parts]),
    )


def _groups(table: pa.Table, manifest: Manifest, train: TrainJob) -> list[str]:
    keys: list[str] = table.column(manifest.key).to_pylist()
    if train.group_by is None:
        return keys
    return group_labels(keys, table.column(train.group_by).to_pylist())


def part_of_split(table: pa.Table, manifest: Manifest, train: TrainJob) -> NDArray[np.str_]:
    """(n,) ``train``, ``test`` or ``other``: the part that each row of a table of features is in."""
    names = None if train.split is None else table.column(train.split).to_pylist()
    return split_rows(_groups(table, manifest, train), names)


def _reading(storage: Storage, manifest: Manifest, train: TrainJob) -> Reading:
    columns = [read_file(storage, manifest, file, [train.target]).column(train.target) for file in manifest.files]
    kind = next((column.type for column in columns if not pa.types.is_null(column.type)), pa.null())
    try:
        found = find_reading(train.target, kind, [v for column in columns for v in column.to_pylist()], train.task)
    except TargetError as error:
        raise JobError("train.target", str(error)) from None
    return found.reading


class HeadInputs:
    """What a kind of head reads of the feature files besides the fused vectors: their ``columns``."""

    def __init__(self, storage: Storage, manifest: Manifest, kind: str) -> None:
        self._names, self._kind = list(manifest.inputs), kind
        self._rows: AlignedRows | None = None
        self.columns: list[str] = []
        if kind == "mlp":
            self.columns = [f"has_{name}" for name in self._names]
        elif kind != "linear":
            self._rows = AlignedRows(storage, manifest)
            self.columns = self._rows.columns

    def of(self, table: pa.Table) -> dict[str, Vectors]:
        """Aligned vectors; (n, 1) of 0 and NaN where only presence counts; nothing for a linear head."""
        if self._rows is not None:
            return self._rows.of(table)
        if self._kind == "linear":
            return {}
        return {name: _presence(table.column(f"has_{name}").to_numpy()) for name in self._names}


def aligned_for(kind: str, views: Mapping[str, Vectors], alignment: Alignment) -> dict[str, Vectors]:
    """What a kind of head reads besides the fused vectors of rows that are in no feature file.

    Args:
        kind: Of the head.
        views: ``{input: (n, d)}``, a row of NaN where an input is missing.
        alignment: That of the features.
    """
    if kind == "linear":
        return {}
    if kind == "mlp":
        return {name: _presence(~np.isnan(view[:, 0])) for name, view in views.items()}
    return {name: np.asarray(part, np.float32) for name, part in alignment.transform(views).items()}


def _presence(there: NDArray[np.bool_]) -> Vectors:
    """(n, 1) of 0 where an input is there and NaN where it is missing."""
    return np.where(there, 0.0, np.nan).astype(np.float32)[:, None]


def read_file(storage: Storage, manifest: Manifest, file: FeatureFile, columns: list[str]) -> pa.Table:
    """Some columns of one feature file, its partition values put back."""
    check_deadline()
    inside = [column for column in dict.fromkeys(columns) if column not in manifest.partition_by]
    with storage.open(file.path) as source:
        table = pq.read_table(source, columns=inside) if inside else pa.table({"": pa.nulls(file.rows)})
    for column in dict.fromkeys(columns):
        if column in manifest.partition_by:
            value = partition_scalar(file.partition[column], manifest.partition_types[column])
            table = table.append_column(column, pa.repeat(value, table.num_rows))
    return table
