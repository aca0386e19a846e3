"""Predictions as a table: the key under its own name, the true value, the prediction, the part of the split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.heads.base import Head
from barycenter.fusion.heads.labels import Form, Reading
from barycenter.fusion.splits import split_of
from barycenter.infra.job.models import TrainJob
from barycenter.infra.storage import Storage
from barycenter.infra.storage.json_files import read_json
from barycenter.tasks.data.labeled_rows import part_of_split

COLUMNS = ("target", "prediction", "probability", "split")
"""Names of the columns beside the key."""


@dataclass(frozen=True)
class Labeling:
    """What a head was trained for, as its metrics.json says it.

    Attributes:
        train: The section of the job file.
        reading: How values of the target become labels.
        version: The version of the features that it was trained on.
    """

    train: TrainJob
    reading: Reading
    version: str

    @classmethod
    def of(cls, storage: Storage, folder: str) -> "Labeling | None":
        """Of the head in a folder of the storage; None where no metrics lie beside it."""
        path = f"{folder}/metrics.json" if folder else "metrics.json"
        if not storage.exists(path):
            return None
        metrics = read_json(storage, path)
        if "train" not in metrics:
            return None
        train = TrainJob(**metrics["train"])
        form: Form = metrics["form"]
        return cls(train, Reading(train.target, metrics["task"], form), metrics["version"])

    @property
    def columns(self) -> list[str]:
        """The columns that labels and split are made of."""
        return list(dict.fromkeys(filter(None, [self.train.target, self.train.split, self.train.group_by])))

    def labels(self, table: pa.Table) -> list[Any] | None:
        """The label of each row, None where it has none; None if the table has no such column."""
        if self.train.target not in table.column_names:
            return None
        return self.reading.labels(table.column(self.train.target).to_pylist())

    def split(self, table: pa.Table, manifest: Manifest | None = None) -> list[str] | None:
        """The part of the split that each row is in; None where nothing says it.

        A hash says it of the rows of the version that the head was trained on only, whose ``manifest`` is given then.
        """
        if self.train.split is not None:
            if self.train.split not in table.column_names:
                return None
            return [split_of(name) for name in table.column(self.train.split).to_pylist()]
        if manifest is None or manifest.version != self.version:
            return None
        return list(part_of_split(table, manifest, self.train).tolist())


def key_name(key: str) -> str:
    """The name of the key column: its own, but ``key`` where that is, or may be, the name of another column.

    >>> key_name("sku"), key_name("target"), key_name("has_text")
    ('sku', 'key', 'key')
    """
    return "key" if key in COLUMNS or key.startswith("has_") else key


def predictions(
    head: Head,
    key: str,
    keys: Sequence[str | None],
    scores: NDArray[np.float64],
    *,
    labels: Sequence[Any] | None = None,
    split: Sequence[str] | None = None,
    scored: NDArray[np.bool_] | None = None,
    has: Mapping[str, NDArray[np.bool_]] | None = None,
) -> pa.Table:
    """Predictions of some rows, of classes and labels with the probability: of the predicted class, or of every label.

    The types depend on the head alone, so that tables of different rows fit together.

    Args:
        head: A fitted head.
        key: Name of the key column.
        keys: n keys.
        scores: (m, k) raw scores of the rows that are scored.
        labels: n true values; None where there are none.
        split: n parts of the split, likewise.
        scored: (n,) which rows have scores, the others are null; by default all n = m.
        has: ``{input: (n,)}`` which rows have it; a column ``has_<input>`` each.
    """
    kind = _prediction_type(head)
    decoded = [label.tolist() if isinstance(label, np.ndarray) else label for label in head.scores_.decode(scores)]
    columns = {"prediction": _as_array(decoded, kind)}
    if head.task_ == "classification":
        columns["probability"] = pa.array(head.scores_.probabilities(scores).max(axis=1), pa.float64())
    elif head.task_ == "multilabel":
        columns["probability"] = pa.array(head.scores_.probabilities(scores).tolist(), pa.list_(pa.float64()))
    if scored is not None:
        places = pa.array(np.cumsum(scored) - 1, mask=~scored)
        columns = {name: column.take(places) for name, column in columns.items()}
    made = {key_name(key): pa.array(keys, pa.string())}
    if labels is not None:
        made["target"] = _as_array(labels, kind)
    made |= columns
    if split is not None:
        made["split"] = pa.array(split, pa.string())
    made |= {f"has_{name}": pa.array(present, pa.bool_()) for name, present in (has or {}).items()}
    return pa.table(made)


def _as_array(labels: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Labels as a column; one that the type does not hold, which the head has never seen, is null."""
    if pa.types.is_string(kind):
        labels = [None if label is None else str(label) for label in labels]
    try:
        return pa.array(labels, kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return pa.array([_fitting(label, kind) for label in labels], kind)


def _fitting(label: Any, kind: pa.DataType) -> Any:
    try:
        return pa.scalar(label, kind).as_py()
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None


def _prediction_type(head: Head) -> pa.DataType:
    if head.task_ == "regression":
        return pa.float64()
    simple, classes = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}, head.scores_.targets.classes
    kinds = {type(label) for label in classes}
    kind = simple.get(kinds.pop(), pa.string()) if len(kinds) == 1 else pa.string()
    if pa.types.is_integer(kind) and not all(-(2**63) <= label < 2**63 for label in classes):
        kind = pa.uint64() if all(0 <= label < 2**64 for label in classes) else pa.string()
    if head.task_ == "classification":
        return kind
    return pa.list_(pa.int64() if head.scores_.targets.shape == "matrix" else kind)
