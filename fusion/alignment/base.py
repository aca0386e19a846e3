"""What every alignment is: fitted on views, it projects them into one space, fuses them, and can be saved."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from barycenter.fusion.arrays import FloatArray
from barycenter.fusion.average import resolve
from barycenter.fusion.serialization import load_estimator, save_estimator
from barycenter.fusion.validation import Views, as_matrix, check_views, column_names, common_rows, present_rows

if TYPE_CHECKING:
    import torch

_TRANSFORM_ROWS = 16384
FORMAT = "barycenter-alignment"
VERSION = 1
_FILES = "alignment"

METHODS: dict[str, type["Alignment"]] = {}

T = TypeVar("T")


def views_as_arrays(estimator: type[T]) -> type[T]:
    """Keeps ``set_output`` from views: a class decorator for estimators whose ``transform`` gives arrays by input.

    scikit-learn would make one table of them. What is given as one matrix comes in the container that was asked for.
    """
    for name in ("transform", "fit_transform"):
        contained = getattr(estimator, name)
        setattr(estimator, name, _unless_views(contained, contained.__wrapped__))
    return estimator


def _unless_views(contained: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(contained)
    def transform(self: Any, X: Any, *args: Any, **kwargs: Any) -> Any:
        return (plain if isinstance(X, Mapping) else contained)(self, X, *args, **kwargs)

    return transform


@views_as_arrays
class Alignment(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of all alignments, a scikit-learn transformer.

    A subclass names its ``method``, fits, and defines how rows that share one pattern of presence are projected and
    fused. Views are ``{name: (n, d)}`` of arrays, data frames, lists or tensors, or one matrix (n, sum of d) whose
    column blocks the parameter ``widths`` names in order: with a matrix an alignment is a step of a ``Pipeline``, whose
    output are the fused vectors.

    Attributes:
        n_features_in_: ``{name: width}`` of the inputs seen in fit, in order.
        feature_names_in_: ``{name: column names}`` of the inputs that were data frames with named columns.
        dim_: Number of components, after clipping to what the data allow.
    """

    method: ClassVar[str]
    widths: Mapping[str, int] | None
    n_features_in_: dict[str, int]
    feature_names_in_: dict[str, list[str]]
    dim_: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "method" in cls.__dict__:
            METHODS[cls.method] = cls

    def fit(self, X: Any, y: Any = None, *, groups: Iterable[object] | None = None) -> Self:
        """Fits on in-memory (or memory-mapped) views.

        Args:
            X: ``{name: (n, d)}``, or one matrix of all inputs; all-NaN rows of an input are missing.
            y: n targets, for ``joint`` with a ``target_share``; the others do not read them.
            groups: n values; rows with equal ones share a fold.

        Raises:
            TypeError: If this is no mapping and there are no ``widths``.
            ValueError: On wrong parameters or shapes, partly NaN or infinite rows, too few complete rows, or targets
                that are not one a row.
        """
        self._check_params()
        views = check_views(X, self.widths)
        rows = common_rows(views)
        if y is not None and (given := np.shape(y)) and given[0] != rows:
            raise ValueError(f"{given[0]} targets for {rows} rows; give one a row")
        self._fit(views, y, None if groups is None else list(groups))
        self.feature_names_in_ = column_names(X, self.widths)
        return self

    @abstractmethod
    def _check_params(self) -> None:
        """Refuses parameters that are out of range, with a ValueError."""

    @abstractmethod
    def _fit(self, views: Views, y: Any, groups: Sequence[object] | None) -> None:
        """Fits on checked views."""

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

    def transform(self, X: Any) -> Any:
        """Projects every input into the common space; of one matrix of all inputs, the fused vectors.

        Args:
            X: As in :meth:`fit`; some inputs may be absent, all-NaN rows are missing.

        Returns:
            ``{name: (n, dim)}`` for the names given, NaN where a row is missing, or (n, dim) as :meth:`fuse` gives
            it, in the container that ``set_output`` asks for; float32 unless an input is float64.

        Raises:
            ValueError: On unknown names, wrong widths, and partly NaN or infinite rows.
        """
        if not isinstance(X, Mapping):
            return self.fuse(X)
        given, there, dtype = self._prepare(X)
        out = {}
        for name, values in given.items():
            rows = np.flatnonzero(there[name])
            out[name] = np.full((len(values), self.dim_), np.nan, dtype)
            self._in_blocks(rows, {name: values}, dtype, out[name], lambda part: self._project(*part.popitem()))
        return out

    def fuse(self, X: Any, average: str = "auto", weights: Mapping[str, float] | None = None) -> FloatArray:
        """One vector a row: the average of the aligned inputs, missing ones replaced by their expectation.

        Args:
            X: As in :meth:`fit`; absent names and all-NaN rows are missing.
            average: ``mean``, ``weighted``, ``spherical``, ``posterior``; ``auto`` is ``weighted`` when weights are
                given or the alignment was fitted with some, and ``mean`` otherwise.
            weights: One per input, for ``weighted`` and ``spherical``.

        Returns:
            (n, dim), float32 unless an input is float64.

        Raises:
            ValueError: As :meth:`transform`; also for a row with nothing present, named by its index.
        """
        given, there, dtype = self._prepare(X)
        method, shares = resolve(*self._average(average, weights), tuple(self.n_features_in_))
        n = common_rows(given)
        order = tuple(name for name in self.n_features_in_ if name in given)
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

    @property
    def _n_features_out(self) -> int:
        return self.dim_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "dim_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _default_average(self) -> Mapping[str, float] | None:
        """Weights that the fit was made for; None where they are equal."""
        return None

    def _average(self, average: str, weights: Mapping[str, float] | None) -> tuple[str, Mapping[str, float] | None]:
        return average, self._default_average() if average == "auto" and weights is None else weights

    def _prepare(self, X: Any) -> tuple[dict[str, FloatArray], dict[str, NDArray[np.bool_]], np.dtype[Any]]:
        check_is_fitted(self)
        given = {}
        for name, values in check_views(X, self.widths).items():
            if name not in self.n_features_in_:
                raise ValueError(f"{name}: unknown input; fitted on {', '.join(self.n_features_in_)}")
            given[name] = as_matrix(name, values)
            if given[name].shape[1] != (width := self.n_features_in_[name]):
                raise ValueError(f"{name}: fitted on {width} columns, got {given[name].shape[1]}")
        known = getattr(self, "feature_names_in_", {})
        for name, columns in column_names(X, self.widths).items():
            if columns != known.get(name, columns):
                raise ValueError(f"{name}: fitted on columns {', '.join(known[name])}, got {', '.join(columns)}")
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
        for start in range(0, len(rows), _TRANSFORM_ROWS):
            index = slice(start, start + _TRANSFORM_ROWS) if whole else rows[start : start + _TRANSFORM_ROWS]
            out[index] = work({name: values[index].astype(dtype, copy=False) for name, values in views.items()})

    def save(self, directory: str | Path) -> None:
        """Writes ``alignment.safetensors`` and ``alignment.json``: the same fit gives the same bytes."""
        (values, arrays), params = self._state(), self.get_params(deep=False)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "params": {key: value for key, value in params.items() if key != "widths" or value is not None},
            "inputs": self.n_features_in_,
            "dim": self.dim_,
            "fitted": values,
        }
        save_estimator(directory, _FILES, header, arrays, checksum=True)


def load(directory: str | Path) -> Alignment:
    """Reads a saved alignment; it transforms bit for bit as the one that was saved.

    Raises:
        ValueError: If the folder holds no alignment, a foreign or newer one, or a damaged one; says why.
    """
    header, arrays = load_estimator(directory, _FILES, FORMAT, VERSION)
    if header.get("method") not in METHODS:
        raise ValueError(f"{directory}: unknown method {header.get('method')!r}; known: {', '.join(METHODS)}")
    try:
        alignment = METHODS[header["method"]](**header["params"])
        alignment.n_features_in_ = {name: int(width) for name, width in header["inputs"].items()}
        alignment.dim_ = int(header["dim"])
        alignment._restore(header["fitted"], arrays)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory}: {_FILES}.json is damaged: {error!r}") from error
    return alignment
