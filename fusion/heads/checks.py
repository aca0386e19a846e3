"""What a head is fitted on, checked row by row before anything is learned: targets, and the scale of features."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.heads.targets import Task, column, infer_task, plain
from barycenter.fusion.parameters import is_number

_TASKS = ("classification", "multilabel", "regression")
_SETS = (list, tuple, set, frozenset, np.ndarray)
# Squares of larger values are no doubles; coefficients on features that vary less are no floats.
_LARGEST, _LEAST = 1e150, 1e-36


def checked_targets(y: Any, task: Any) -> tuple[Sequence[Any] | NDArray[Any], Task]:
    """Targets of which every row says something, and what they are.

    Args:
        y: n targets: a list, an array, a column of pandas, polars or Arrow, a tensor.
        task: One of the tasks, or ``auto``.

    Raises:
        TypeError: If targets are not one a row, or one is of a type that cannot be learned; names the row.
        ValueError: On an unknown task, or where a row is empty, not finite or none of the task's; names the row.
    """
    if task not in (*_TASKS, "auto"):
        raise ValueError(f"task must be auto, {', '.join(_TASKS)}, not {task!r}")
    y = as_targets(y)
    kind: Task = infer_task(y) if task == "auto" else task
    if isinstance(y, np.ndarray) and y.ndim == 2:
        _check_matrix(y, kind)
        return y, kind
    check = {"classification": _check_class, "multilabel": _check_set, "regression": _check_value}[kind]
    for row, value in enumerate(y):
        if _says_nothing(value):
            raise ValueError(f"targets: row {row} is empty ({plain(value)!r}); leave out rows without a target")
        check(f"targets: row {row}", value)
    return y, kind


def as_targets(y: Any) -> Sequence[Any] | NDArray[Any]:
    """Targets as a list or an array, (n, 1) ones as (n,).

    Raises:
        TypeError: If they are not one a row.
        ValueError: If there are none.
    """
    if y is None:
        raise ValueError("a head requires y to be passed, but the target y is None")
    if hasattr(y, "to_pylist"):
        return list(y.to_pylist())
    if hasattr(y, "detach"):
        y = y.detach().cpu().numpy()
    elif hasattr(y, "__array__"):
        y = np.asarray(y)
    if isinstance(y, str | bytes | Mapping) or not hasattr(y, "__len__") or (isinstance(y, np.ndarray) and not y.ndim):
        raise TypeError(f"targets: expected one a row in a list or an array, got {type(y).__name__}")
    if not isinstance(y, np.ndarray):
        return y if isinstance(y, Sequence) else list(y)
    if y.ndim > 2:
        raise TypeError(f"targets: expected (n,) or (n, k), got shape {y.shape}")
    return column(y)


def check_scale(name: str, values: NDArray[np.floating], least: float = _LEAST) -> None:
    """Refuses numbers whose squares, or the inverse of whose spread, are no numbers.

    Raises:
        ValueError: Naming what is too large or varies too little.
    """
    if not values.size:
        return
    low, high = values.min(axis=0), values.max(axis=0)
    largest = max(abs(float(low.min())), abs(float(high.max())))
    spread = float(np.max(high.astype(np.float64) / 2 - low.astype(np.float64) / 2)) * 2
    if largest > _LARGEST:
        raise ValueError(f"{name}: values as large as {largest:.2g} cannot be squared; rescale them")
    if 0 < spread < least:
        raise ValueError(f"{name}: values vary by {spread:.2g} at most, too little to learn from; rescale them")


def _says_nothing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _check_matrix(y: NDArray[Any], kind: Task) -> None:
    if kind == "classification":
        raise ValueError(f"targets of shape {y.shape}: a classification needs one class a row")
    try:
        numbers = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"targets of shape {y.shape} must be numbers: {error}") from None
    good = np.isfinite(numbers).all(axis=1)
    if not good.all():
        raise ValueError(f"targets: row {int(np.argmin(good))} is not finite; leave out rows without a target")
    if kind == "multilabel" and not np.isin(numbers, (0, 1)).all():
        raise ValueError(f"targets of shape {y.shape}: a matrix of labels holds 0 and 1 only")


def _check_class(where: str, value: Any) -> None:
    value = plain(value)
    if not isinstance(value, str | int | float | Decimal):
        raise TypeError(f"{where} is {type(value).__name__}; classes are text, numbers or booleans, make text of it")
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{where} is {value!r}, which is no class")


def _check_set(where: str, value: Any) -> None:
    if not isinstance(value, _SETS):
        raise TypeError(f"{where} is {type(value).__name__}; multilabel targets are lists of labels")
    for label in value:
        if _says_nothing(label):
            raise ValueError(f"{where} holds an empty label ({label!r})")
        _check_class(f"{where}: a label", label)


def _check_value(where: str, value: Any) -> None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{where} is {str(plain(value))[:60]!r}; a regression needs numbers") from None
    if not is_number(number):
        raise ValueError(f"{where} is {plain(value)!r}, which is not finite")
