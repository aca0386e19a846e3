"""What a caller hands over as the values of an input, checked row by row: wrong types are refused, not missing."""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from barycenter.fusion.encoders.row_values import is_null

_ONE_VALUE = (str, bytes, bytearray, Path, Mapping)
_EXPECTED = {"text": "a text", "image": "a path, encoded bytes or a PIL image", "vector": "a list of numbers"}


def check_input_values(name: str, kind: str, values: Any, width: int, joined: bool = False) -> list[object]:
    """The n values of an input; what means a missing one becomes None.

    Args:
        name: The input.
        kind: ``text``, ``image`` or ``vector``.
        values: A list, an array or a column: one value a row, or a list of several.
        width: Numbers of a vector.
        joined: A list is one text made of several columns, which may hold numbers.

    Raises:
        TypeError: If this is a single value and not one a row, or a row is of another kind; names input and row.
        ValueError: If a vector has another length, or is partly NaN or infinite; likewise.
    """
    if isinstance(values, _ONE_VALUE) or hasattr(values, "save") or not hasattr(values, "__len__"):
        raise TypeError(f"{name}: expected one value a row in a list, got {type(values).__name__}; write [value]")
    if hasattr(values, "to_pylist"):
        values = values.to_pylist()
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return [_checked(f"{name}: row {row}", kind, value, width, joined) for row, value in enumerate(values)]


def _checked(where: str, kind: str, value: Any, width: int, joined: bool) -> object:
    if _is_missing(value):
        return None
    if kind == "vector":
        several = isinstance(value, Sequence) and any(isinstance(part, Sequence | np.ndarray) for part in value)
        if several and not any(isinstance(part, str) for part in value):
            return [None if _is_missing(part) else _vector(where, part, width) for part in value]
        return _vector(where, value, width)
    parts = value if isinstance(value, list | tuple) else [value]
    for part in parts:
        if not (_is_missing(part) or _fits(kind, part) or (joined and parts is value and isinstance(part, Real))):
            raise TypeError(f"{where}: expected {_EXPECTED.get(kind, kind)}, got {_described(part)}")
    return [None if _is_missing(part) else part for part in parts] if isinstance(value, list | tuple) else value


def _is_missing(value: object) -> bool:
    return is_null(value) or type(value).__name__ in ("NAType", "NaTType")


def _fits(kind: str, value: object) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if kind == "image":
        picture = hasattr(value, "save") and hasattr(value, "mode")
        return picture or callable(value) or isinstance(value, str | Path | bytes | bytearray | memoryview)
    return True


def _vector(where: str, value: object, width: int) -> object:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: expected {_EXPECTED['vector']}, got {_described(value)}") from error
    if array.dtype.kind not in "fiub" or array.ndim != 1:
        raise TypeError(f"{where}: expected {_EXPECTED['vector']}, got {_described(value)}")
    if len(array) != width:
        raise ValueError(f"{where}: a vector of {len(array)} numbers, the features are made with {width}")
    finite = np.isfinite(array)
    if finite.all():
        return array
    if np.isnan(array).all():
        return None
    raise ValueError(f"{where} is partly NaN or infinite; a missing vector is None or NaN only")


def _described(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown[:60]}{'...' if len(shown) > 60 else ''}"
