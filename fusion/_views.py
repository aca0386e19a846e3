"""Checks on ``{input name: (n, d) array}``: shapes, and which rows are there."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
Views = Mapping[str, FloatArray]


def as_matrix(name: str, values: object) -> FloatArray:
    """A two-dimensional float array of the values; half floats and integers become float32.

    Raises:
        ValueError: If the values are not a numeric matrix.
    """
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"{name}: expected an (n, d) array, got shape {array.shape}")
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected numbers, got dtype {array.dtype}")
    return array.astype(np.float32)


def present_rows(name: str, values: FloatArray, numbers: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
    """Which rows hold a vector; an all-NaN row is a missing one.

    Args:
        name: The input, for the error.
        values: (n, d) float32 or float64.
        numbers: (n,) the rows' numbers, for the error; 0..n-1 by default.

    Raises:
        ValueError: If a row is partly NaN or holds an infinite value; names the input and the row.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        suspect = np.flatnonzero(~np.isfinite(values @ np.ones(values.shape[1], values.dtype)))
    present = np.ones(len(values), dtype=bool)
    if not len(suspect):
        return present
    finite = np.isfinite(values[suspect])
    missing = np.isnan(values[suspect]).all(axis=1)
    wrong = suspect[~missing & ~finite.all(axis=1)]
    if len(wrong):
        row = int(wrong[0] if numbers is None else numbers[wrong[0]])
        raise ValueError(f"{name}: row {row} is partly NaN or infinite; a missing input is a row of NaN only")
    present[suspect[missing]] = False
    return present


def common_rows(views: Views) -> int:
    """The number of rows, the same in every input.

    Raises:
        ValueError: If there is no input, or the inputs differ in rows.
    """
    if not views:
        raise ValueError("no inputs: expected {name: (n, d) array}")
    rows = {name: len(values) for name, values in views.items()}
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(f"inputs differ in rows: {told}")
    return next(iter(rows.values()))
