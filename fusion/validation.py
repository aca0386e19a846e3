"""Checks on ``{input name: (n, d) array}``: shapes, and which rows are there; every estimator takes views through them.

Arrays may be NumPy's (memory-mapped ones stay so), nested lists, tables of pandas or polars, or tensors of torch.
What an array masks is NaN.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.arrays import BLOCK_ROWS, FloatArray
from barycenter.fusion.parameters import check_whole

Views = Mapping[str, FloatArray]


def check_views(views: Any, widths: Mapping[str, int] | None = None) -> dict[str, NDArray[Any]]:
    """The views as two-dimensional arrays of numbers with equal rows, of whatever type the numbers are.

    Args:
        views: ``{name: (n, d)}`` of arrays, data frames, lists or tensors, or one such matrix of all inputs.
        widths: ``{name: columns}`` of the inputs in such a matrix, in order.

    Raises:
        TypeError: If this is no mapping and there are no widths, or a name is no text.
        ValueError: If there is no input, one is not a matrix of numbers, or inputs differ in rows; if the widths do not
            add up to the columns of the matrix.

    >>> check_views([[1, 2, 3]], {"text": 2, "image": 1})
    {'text': array([[1, 2]]), 'image': array([[3]])}
    """
    if not isinstance(views, Mapping):
        if widths is None:
            raise TypeError(
                f"expected {{input name: (n, d) array}}, or one matrix and its widths={{input name: d}}, "
                f"got {type(views).__name__}"
            )
        matrix = as_array("X", views)
        return {name: matrix[:, columns] for name, columns in _blocks(widths, matrix.shape[1]).items()}
    if odd := [name for name in views if not isinstance(name, str)]:
        raise TypeError(f"names of inputs must be text, not {odd[0]!r}")
    arrays = {name: as_array(name, values) for name, values in views.items()}
    common_rows(arrays)
    return arrays


def column_names(views: Any, widths: Mapping[str, int] | None = None) -> dict[str, list[str]]:
    """``{name: column names}`` of the views that are data frames whose columns all have text for a name."""
    columns = list(getattr(views, "columns", ()))
    if columns and widths is not None:
        named = {name: columns[block] for name, block in _blocks(widths, len(columns)).items()}
    elif isinstance(views, Mapping):
        named = {name: list(getattr(values, "columns", ())) for name, values in views.items()}
    else:
        named = {}
    return {name: own for name, own in named.items() if own and all(isinstance(column, str) for column in own)}


def _blocks(widths: Mapping[str, int], total: int) -> dict[str, slice]:
    if not isinstance(widths, Mapping):
        raise TypeError(f"widths must be {{input name: columns}}, such as {{'text': 384}}, not {widths!r:.60}")
    for name, width in widths.items():
        check_whole(f"widths[{name!r}]", width)
    if sum(widths.values()) != total:
        raise ValueError(f"widths {dict(widths)} add up to {sum(widths.values())}, but the matrix has {total} columns")
    ends = np.cumsum([0, *widths.values()])
    return {name: slice(start, end) for name, start, end in zip(widths, ends[:-1], ends[1:], strict=True)}


def as_array(name: str, values: object) -> NDArray[Any]:
    """A two-dimensional array of numbers, of whatever type they are; nothing is copied that need not be.

    Raises:
        TypeError: On a sparse matrix.
        ValueError: If the values are not a matrix of numbers; names the input.
    """
    if hasattr(values, "toarray"):
        raise TypeError(f"{name}: sparse data is not supported; use .toarray()")
    try:
        array = _to_numpy(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected an (n, d) array of numbers: {error}") from error
    if array.dtype.kind == "c":
        raise ValueError(f"{name}: Complex data not supported")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected an (n, d) array of numbers, got {_kind(values, array)}")
    if array.ndim != 2:
        advice = "" if array.ndim != 1 else "; Reshape your data, to (-1, 1) for one column or (1, -1) for one row"
        raise ValueError(f"{name}: expected an (n, d) array, got shape {array.shape}{advice}")
    if not array.shape[1]:
        raise ValueError(
            f"{name}: expected at least one column, got 0 feature(s) (shape={array.shape}) while a minimum of 1 is "
            "required."
        )
    return array


def _to_numpy(values: Any) -> NDArray[Any]:
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        return np.asarray(tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor)
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind in "fiub":
        floats = values.astype(np.result_type(values.dtype, np.float32))
        return np.where(np.ma.getmaskarray(floats), np.float32(np.nan), np.ma.getdata(floats))
    array = np.asarray(values)
    if array.dtype == object and hasattr(values, "isna"):
        numeric = values.select_dtypes("number") if hasattr(values, "select_dtypes") else values
        if numeric.shape == values.shape:
            return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    return array


def _kind(values: object, array: NDArray[Any]) -> str:
    if array.size and isinstance(array.flat[0], str):
        return f"text such as {str(array.flat[0])[:40]!r}"
    return f"{type(values).__name__} of {array.dtype}"


def as_matrix(name: str, values: object) -> FloatArray:
    """A two-dimensional float array of the values; half floats and integers become float32.

    Raises:
        ValueError: If the values are not a numeric matrix.
    """
    array = as_array(name, values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


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


def check_rows(views: Mapping[str, NDArray[Any]], first: int = 0) -> None:
    """Reads all rows of arrays in blocks, so that what is wrong is found before anything is made of them.

    Args:
        views: As :func:`check_views` gives them.
        first: Number of the first row, for the error.

    Raises:
        ValueError: See :func:`present_rows`.
    """
    for name, values in views.items():
        for start in range(0, len(values), BLOCK_ROWS):
            block = as_matrix(name, values[start : start + BLOCK_ROWS])
            present_rows(name, block, np.arange(first + start, first + start + len(block)))


def common_rows(views: Views) -> int:
    """The number of rows, the same in every input.

    Raises:
        ValueError: If there is no input, or the inputs differ in rows.
    """
    if not views:
        raise ValueError("no inputs: expected {name: (n, d) array}")
    rows = {name: len(values) for name, values in views.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(f"inputs differ in rows: {counts}")
    return next(iter(rows.values()))


def constant_columns(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(d,) whether all rows hold the same value."""
    return np.asarray((values == values[:1]).all(axis=0))
