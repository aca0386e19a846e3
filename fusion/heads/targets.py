"""Targets as numbers and back: classes, label sets, values."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["classification", "multilabel", "regression"]


def is_empty(label: object) -> bool:
    """Whether a label says nothing: None, a blank text, or NaN.

    >>> [is_empty(label) for label in (None, "", " ", float("nan"), 0, [], "a")]
    [True, True, True, True, False, False, False]
    """
    if isinstance(label, (float, np.floating)):
        return bool(np.isnan(label))
    return label is None or (isinstance(label, str) and not label.strip())


def infer_task(y: Sequence[Any] | NDArray[Any]) -> Task:
    """What targets are, by scikit-learn's rule for numbers; empty ones do not count.

    ``multilabel`` for lists or a 0/1 matrix of several columns, ``regression`` for numbers of which one has a
    fraction, else ``classification``.

    >>> infer_task([0.0, 1.0]), infer_task([0.5, 1]), infer_task(np.array([[1], [2]]))
    ('classification', 'regression', 'classification')
    """
    array = column(y) if isinstance(y, np.ndarray) else None
    if array is not None and array.ndim == 2:
        return "multilabel" if np.isin(array, (0, 1)).all() else "regression"
    known = [value for value in (y if array is None else array.tolist()) if not is_empty(value)]
    if any(isinstance(value, (list, tuple, set, np.ndarray)) for value in known):
        return "multilabel"
    numbers = all(isinstance(value, (int, float, Decimal, np.number)) for value in known)
    return "regression" if numbers and any(value % 1 != 0 for value in known) else "classification"


def column(y: NDArray[Any]) -> NDArray[Any]:
    """(n, 1) targets as (n,), any others as they are."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


class Targets:
    """How the targets of a head become a (n, k) matrix, and predictions become targets.

    Args:
        task: What kind of target.
        classes: The classes or labels in column order; empty for regression and for label matrices.
        shape: ``values`` (n,), ``matrix`` (n, k), or ``sets`` of labels.
    """

    def __init__(self, task: Task, classes: list[Any], shape: Literal["values", "matrix", "sets"]) -> None:
        self.task, self.classes, self.shape = task, classes, shape

    @classmethod
    def of(cls, y: Sequence[Any] | NDArray[Any], task: Task) -> "Targets":
        """The classes that occur, sorted."""
        y = column(y) if isinstance(y, np.ndarray) else y
        if task == "classification":
            return cls(task, _sorted({plain(value) for value in y}), "values")
        if task == "multilabel" and not (isinstance(y, np.ndarray) and y.ndim == 2):
            return cls(task, _sorted({plain(label) for labels in y for label in labels}), "sets")
        return cls(task, [], "matrix" if np.ndim(np.asarray(y)) == 2 else "values")

    def encode(self, y: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
        """(n, k): one-hot rows, 0/1 label columns, or the values.

        A class that was not seen becomes a row of zeros.
        """
        y = column(y) if isinstance(y, np.ndarray) and self.shape != "matrix" else y
        if self.shape == "matrix":
            return np.asarray(y, dtype=np.float64)
        if self.task == "regression":
            return np.asarray([float(value) for value in y])[:, None]
        place = {name: column for column, name in enumerate(self.classes)}
        encoded = np.zeros((len(y), len(self.classes)))
        for row, value in enumerate(y):
            for label in value if self.task == "multilabel" else (value,):
                at = place.get(plain(label))
                if at is not None:
                    encoded[row, at] = 1.0
        return encoded

    def row_weights(
        self, Y: NDArray[np.float64], class_weight: Literal["balanced"] | Mapping[Any, float] | None
    ) -> NDArray[np.float64]:
        """(n,) weights of encoded rows.

        Raises:
            ValueError: If the task has no classes, or a weight is not above 0.
        """
        if class_weight is None:
            return np.ones(len(Y))
        if self.task != "classification":
            raise ValueError("class_weight is for classification")
        if class_weight == "balanced":
            each = len(Y) / (Y.shape[1] * np.maximum(Y.sum(axis=0), 1))
        elif isinstance(class_weight, Mapping):
            each = np.array([float(class_weight.get(name, 1.0)) for name in self.classes])
        else:
            raise ValueError(f"class_weight must be None, 'balanced' or {{class: weight}}, not {class_weight!r}")
        if not ((each > 0) & np.isfinite(each)).all():
            raise ValueError("class weights must be above 0 and finite")
        return np.asarray(Y @ each)

    def decode(self, predictions: NDArray[np.floating]) -> NDArray[Any]:
        """(n,) classes, label lists or values, or an (n, k) matrix, as the targets were given.

        Args:
            predictions: (n, k): class scores, label probabilities, or values.
        """
        if self.task == "classification":
            best: NDArray[Any] = as_array(self.classes)[predictions.argmax(axis=1)]
            return best
        if self.task == "regression":
            return predictions if self.shape == "matrix" else predictions[:, 0]
        chosen = predictions > 0.5
        if self.shape == "matrix":
            return chosen.astype(np.int64)
        return as_array([[self.classes[column] for column in np.flatnonzero(row)] for row in chosen])


def plain(value: Any) -> Any:
    """A number of NumPy's as Python's, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _sorted(values: set[Any]) -> list[Any]:
    return sorted(values, key=lambda value: (type(value).__name__, value))


def as_array(values: list[Any]) -> NDArray[Any]:
    """An array of plain values where they are of one simple type, else of objects."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1 and kinds <= {int, float, bool, str}:
        return np.array(values)
    return as_objects(values)


def as_objects(values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """(n,) values as objects, lists among them included."""
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    return array
