"""What every alignment is: fitted on views, it projects them into one space, fuses them, and can be saved."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from barycenter.fusion.average import resolve
from barycenter.fusion.serialization import dumps
from barycenter.fusion.validation import FloatArray, Views, as_matrix, as_views, common_rows, present_rows

if TYPE_CHECKING:
    import torch

BLOCK_ROWS = 16384
FORMAT = "barycenter-alignment"
VERSION = 1
ARRAYS_FILE = "alignment.safetensors"
HEADER_FILE = "alignment.json"

METHODS: dict[str, type["Alignment"]] = {}


class Alignment(BaseEstimator, ABC):  # type: ignore[misc]
    """Base of all alignments.

    A subclass names its ``method``, fits, and defines how rows that share one pattern of presence are projected and
    fused. Parameters are those of its constructor (``get_params``/``set_params`` as in scikit-learn).

    Attributes:
        dims_: ``{name: width}`` of the inputs seen in fit, in order.
        dim_: Number of components, after clipping to what the data allow.
    """

    method: ClassVar[str]
    dims_: dict[str, int]
    dim_: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "method" in cls.__dict__:
            METHODS[cls.method] = cls

    @abstractmethod
    def fit(self, views: Views, groups: Iterable[object] | None = None) -> Self:
        """Fits on ``{name: (n, d)}``; rows with equal groups share a fold."""

    @abstractmethod
    def _project(self, name: str, values: FloatArray) -> FloatArray:
        """(n, dim) aligned vectors of rows that have the input."""

    @abstractmethod
    def _fuse(self, present: Mapping[str, FloatArray], method: str, shares: Mapping[str, float]) -> FloatArray:
        """(n, dim) fused vectors of rows that all have just these inputs, in order."""

    @abstractmethod
    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Fitted values that JSON can hold, and fitted arrays."""

    @abstractmethod
    def _restore(self, values: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Takes back what :meth:`_state` gave; raises KeyError where something is lacking."""

    @abstractmethod
    def as_module(self, average: str = "auto", weights: Mapping[str, float] | None = None) -> "torch.nn.Module":
        """A differentiable module that does what :meth:`fuse` does."""

    def transform(self, views: Views) -> dict[str, FloatArray]:
        """Projects every input into the common space.

        Args:
            views: ``{name: (n, d)}``; some inputs may be absent, all-NaN rows are missing.

        Returns:
            ``{name: (n, dim)}`` for the names given; NaN where a row is missing; float32 unless an input is float64.

        Raises:
            ValueError: On unknown names, wrong widths, and partly NaN or infinite rows.
        """
        given, there, dtype = self._prepare(views)
        out = {}
        for name, values in given.items():
            rows = np.flatnonzero(there[name])
            out[name] = np.full((len(values), self.dim_), np.nan, dtype)
            self._in_blocks(
                rows, {name: values}, dtype, out[name], lambda part: self._project(*next(iter(part.items())))
            )
        return out

    def fuse(self, views: Views, average: str = "auto", weights: Mapping[str, float] | None = None) -> FloatArray:
        """One vector a row: the average of the aligned inputs, missing ones replaced by their expectation.

        Args:
            views: ``{name: (n, d)}``; absent names and all-NaN rows are missing.
            average: ``mean``, ``weighted``, ``spherical``, ``posterior``; ``auto`` is ``weighted`` when weights are
                given or the alignment was fitted with some, and ``mean`` otherwise.
            weights: One per input, for ``weighted`` and ``spherical``.

        Returns:
            (n, dim), float32 unless an input is float64.

        Raises:
            ValueError: As :meth:`transform`; also for a row with nothing present, named by its index.
        """
        given, there, dtype = self._prepare(views)
        method, shares = resolve(*self._average(average, weights), tuple(self.dims_))
        n = common_rows(given)
        order = tuple(name for name in self.dims_ if name in given)
        present = np.stack([there[name] for name in order], axis=1)
        if not present.any(axis=1).all():
            raise ValueError(f"row {int(np.argmin(present.any(axis=1)))} has no input")
        fused = np.empty((n, self.dim_), dtype)
        codes = present @ (1 << np.arange(len(order)))
        for code in np.unique(codes):
            here = {name: given[name] for i, name in enumerate(order) if code >> i & 1}
            rows = np.flatnonzero(codes == code)
            self._in_blocks(rows, here, dtype, fused, lambda part: self._fuse(part, method, shares))
        return fused

    def _default_average(self) -> Mapping[str, float] | None:
        """Weights that the fit was made for; None where they are equal."""
        return None

    def _average(self, average: str, weights: Mapping[str, float] | None) -> tuple[str, Mapping[str, float] | None]:
        chosen = self._default_average() if average == "auto" and weights is None else weights
        return average, chosen

    def _prepare(self, views: Views) -> tuple[dict[str, FloatArray], dict[str, NDArray[np.bool_]], np.dtype[Any]]:
        if not hasattr(self, "dims_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted; call fit first")
        given = {}
        for name, values in as_views(views).items():
            if name not in self.dims_:
                raise ValueError(f"{name}: unknown input; fitted on {', '.join(self.dims_)}")
            given[name] = as_matrix(name, values)
            if given[name].shape[1] != self.dims_[name]:
                raise ValueError(f"{name}: fitted on {self.dims_[name]} columns, got {given[name].shape[1]}")
        there = {name: present_rows(name, values) for name, values in given.items()}
        return given, there, np.result_type(np.float32, *given.values())

    @staticmethod
    def _in_blocks(
        rows: NDArray[np.int64],
        views: Mapping[str, FloatArray],
        dtype: np.dtype[Any],
        out: FloatArray,
        work: Callable[[dict[str, FloatArray]], FloatArray],
    ) -> None:
        whole = len(rows) == len(out)
        for start in range(0, len(rows), BLOCK_ROWS):
            index = slice(start, start + BLOCK_ROWS) if whole else rows[start : start + BLOCK_ROWS]
            out[index] = work({name: values[index].astype(dtype, copy=False) for name, values in views.items()})

    def save(self, directory: str | Path) -> None:
        """Writes ``alignment.safetensors`` and ``alignment.json``: the same fit gives the same bytes."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        values, arrays = self._state()
        payload = safetensors.numpy.save(arrays)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "params": self.get_params(deep=False),
            "inputs": self.dims_,
            "dim": self.dim_,
            "fitted": values,
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        text = dumps(header)
        (folder / ARRAYS_FILE).write_bytes(payload)
        (folder / HEADER_FILE).write_text(text + "\n", encoding="utf-8")


def load(directory: str | Path) -> Alignment:
    """Reads a saved alignment; it transforms bit for bit as the one that was saved.

    Raises:
        ValueError: If the folder holds no alignment, a foreign or newer one, or a damaged one; says why.
    """
    folder = Path(directory)
    try:
        header = json.loads((folder / HEADER_FILE).read_text(encoding="utf-8"))
        payload = (folder / ARRAYS_FILE).read_bytes()
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: no readable alignment: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{folder}: {HEADER_FILE} is not of format {FORMAT}")
    if header.get("version") != VERSION:
        raise ValueError(f"{folder}: format version {header.get('version')}; this code reads {VERSION}")
    if header.get("method") not in METHODS:
        raise ValueError(f"{folder}: unknown method {header.get('method')!r}; known: {', '.join(METHODS)}")
    if hashlib.sha256(payload).hexdigest() != header.get("sha256"):
        raise ValueError(f"{folder}: {ARRAYS_FILE} is damaged or not the one that {HEADER_FILE} describes")
    try:
        alignment = METHODS[header["method"]](**header["params"])
        alignment.dims_ = {name: int(width) for name, width in header["inputs"].items()}
        alignment.dim_ = int(header["dim"])
        alignment._restore(header["fitted"], safetensors.numpy.load(payload))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: {HEADER_FILE} is damaged: {error!r}") from error
    return alignment
