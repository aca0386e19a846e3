r"""First and second moments of paired inputs, mergeable without loss.

Every linear alignment needs no more of the data than counts, means and centered second moments.
:class:`Moments` gathers them in one pass with bounded memory: rows are centered block by block, multiplied in
float32 (or float64), and merged in float64 by the pairwise update of Chan, Golub and LeVeque (1983), eq. 2.1:

.. math:: M_{AB} = M_A + M_B + \frac{n_A n_B}{n_A + n_B}\,\delta\delta^\top, \quad \delta = \bar x_B - \bar x_A .
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from barycenter.fusion.arrays import BLOCK_ROWS, Float64, FloatArray
from barycenter.fusion.moments.sums import Sums
from barycenter.fusion.serialization import load_arrays
from barycenter.fusion.validation import Views, as_matrix, check_rows, check_views, common_rows, present_rows

_FORMAT = "barycenter-moments"
_VERSION = 1

Precision = Literal["float32", "float64"]


class Moments:
    """Joint moments of the rows that have every input, and each input's own over all rows that have it.

    Args:
        dims: Width of each input; the order is kept.
        precision: Type in which blocks are multiplied; the state is always float64.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> views = {"text": rng.normal(size=(100, 3)), "image": rng.normal(size=(100, 2))}
        >>> whole = Moments.of(views, precision="float64")
        >>> parts = [Moments.of({k: v[i::3] for k, v in views.items()}, precision="float64") for i in range(3)]
        >>> bool(np.allclose(merge_all(parts).cov, whole.cov, atol=1e-12)), whole.n, whole.cov.shape
        (True, 100, (5, 5))
    """

    def __init__(self, dims: Mapping[str, int], precision: Precision = "float32") -> None:
        if not dims:
            raise ValueError("no inputs: expected {name: width}")
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision must be 'float32' or 'float64', not {precision!r}")
        self.dims = dict(dims)
        self.precision: Precision = precision
        self._joint = Sums.zeros(sum(self.dims.values()))
        self._partial = {name: Sums.zeros(width) for name, width in self.dims.items()}
        self.cache: dict[Any, Any] = {}

    @classmethod
    def of(cls, views: Views, precision: Precision = "float32", dims: Mapping[str, int] | None = None) -> Self:
        """Moments of in-memory (or memory-mapped) views.

        Args:
            views: ``{name: (n, d)}``; an all-NaN row is a missing input. Arrays, nested lists, tables of pandas or
                polars, tensors.
            precision: See the class.
            dims: Widths of all inputs, where ``views`` may lack a name.

        Raises:
            TypeError: If the views are no mapping.
            ValueError: On unequal rows, wrong shapes, and partly NaN or infinite rows, named by input and index.
        """
        arrays = check_views(views)
        moments = cls(dims or {name: values.shape[1] for name, values in arrays.items()}, precision)
        moments.update(arrays)
        return moments

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs in order."""
        return tuple(self.dims)

    @property
    def columns(self) -> dict[str, slice]:
        """The columns of each input in the concatenation."""
        ends = accumulate(self.dims.values(), initial=0)
        return {name: slice(int(a), int(b)) for name, (a, b) in zip(self.dims, pairwise(ends), strict=True)}

    @property
    def n(self) -> int:
        """Number of rows that have every input."""
        return self._joint.n

    @property
    def mean(self) -> Float64:
        """(p,) mean of the concatenated inputs over complete rows."""
        return self._joint.mean

    @property
    def means(self) -> dict[str, Float64]:
        """``{name: (d,)}`` mean of each input over complete rows."""
        return {name: self.mean[columns] for name, columns in self.columns.items()}

    @property
    def cov(self) -> Float64:
        """(p, p) covariance of the concatenated inputs over complete rows, divisor n - 1."""
        return self._joint.cov

    def block(self, row: str, column: str) -> Float64:
        """(d_row, d_column) covariance between two inputs over complete rows."""
        columns = self.columns
        return self._joint.m2[columns[row], columns[column]] / max(self.n - 1, 1)

    @property
    def varying(self) -> tuple[str, ...]:
        """The inputs that are not the same in every complete row."""
        columns = self.columns
        return tuple(name for name in self.dims if (np.diagonal(self._joint.m2)[columns[name]] > 0).any())

    def count(self, name: str) -> int:
        """Number of rows that have one input."""
        return self._joint.n + self._partial[name].n

    def select(self, names: Sequence[str]) -> "Moments":
        """The moments of some of the inputs, from the rows that have all of them."""
        chosen = Moments({name: self.dims[name] for name in names}, self.precision)
        columns = self.columns
        index = np.concatenate([np.arange(columns[name].start, columns[name].stop) for name in names])
        chosen._joint = Sums(self.n, self.mean[index], self._joint.m2[np.ix_(index, index)])
        chosen._partial = {name: self._partial[name].copy() for name in names}
        return chosen

    def with_cross(self, cross: Mapping[tuple[str, str], Float64]) -> "Moments":
        """A copy of the joint moments with other centered cross-product sums: the same rows, paired differently.

        Args:
            cross: ``{(row, column): (d_row, d_column)}``.
        """
        other, columns = self.copy(), self.columns
        for (row, column), values in cross.items():
            other._joint.m2[columns[row], columns[column]] = values
            other._joint.m2[columns[column], columns[row]] = values.T
        return other

    def update(self, views: Views, first: int = 0) -> None:
        """Adds rows, in blocks of ``BLOCK_ROWS``: all of them, or none where one of them is wrong.

        Args:
            views: ``{name: (n, d)}``; an absent name is missing in every row.
            first: Number of the first row, for error messages.

        Raises:
            ValueError: See :meth:`of`.
        """
        self.add_checked(self.checked(views, first))

    def checked(self, views: Views, first: int = 0) -> dict[str, NDArray[Any]]:
        """The views as arrays that fit these moments, every row of them read once.

        Raises:
            ValueError: See :meth:`of`.
        """
        arrays = check_views(views)
        self._check(arrays)
        check_rows(arrays, first)
        return arrays

    def add_checked(self, views: Views, rows: NDArray[np.int64] | None = None) -> None:
        """Adds rows of what :meth:`checked` gave: only some, ascending, where ``rows`` names them."""
        total = common_rows(views) if rows is None else len(rows)
        buffer = np.empty((min(total, BLOCK_ROWS), len(self.mean)), dtype=self.precision)
        for start in range(0, total, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, total)
            index = slice(start, stop) if rows is None else rows[start:stop]
            block = {name: as_matrix(name, values[index]) for name, values in views.items()}
            self._add_block(block, buffer)
        self.cache.clear()

    def _check(self, views: Views) -> None:
        for name, values in views.items():
            if name not in self.dims:
                raise ValueError(f"{name}: unknown input; expected {', '.join(self.dims)}")
            if values.shape[1] != self.dims[name]:
                raise ValueError(f"{name}: expected (n, {self.dims[name]}), got shape {values.shape}")

    def _add_block(self, block: dict[str, FloatArray], buffer: FloatArray) -> None:
        n = common_rows(block)
        absent = np.zeros(n, dtype=bool)
        present = {name: present_rows(name, block[name]) if name in block else absent for name in self.dims}
        complete = np.logical_and.reduce(list(present.values()))
        if complete.all():
            self._joint.add(Sums.of_block([block[name] for name in self.dims], buffer))
            return
        if complete.any():
            self._joint.add(Sums.of_block([block[name][complete] for name in self.dims], buffer))
        for name, values in block.items():
            rest = present[name] & ~complete
            if rest.any():
                part = values[rest]
                self._partial[name].add(Sums.of_block([part], np.empty(part.shape, self.precision)))

    def copy(self) -> "Moments":
        """An independent copy."""
        other = Moments.__new__(Moments)
        other.dims, other.precision, other.cache = dict(self.dims), self.precision, {}
        other._joint = self._joint.copy()
        other._partial = {name: sums.copy() for name, sums in self._partial.items()}
        return other

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows, as a new object.

        Raises:
            ValueError: If the inputs or their widths differ.
        """
        if list(self.dims.items()) != list(other.dims.items()):
            raise ValueError(f"cannot merge moments of {self.dims} and {other.dims}")
        merged = self.copy()
        merged._joint.add(other._joint)
        for name, sums in other._partial.items():
            merged._partial[name].add(sums)
        if "float32" in (self.precision, other.precision):
            merged.precision = "float32"
        return merged

    def to_arrays(self, prefix: str = "") -> dict[str, NDArray[Any]]:
        """Everything as named arrays; :meth:`from_arrays` reads them back exactly."""
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "inputs": list(self.dims.items()),
            "precision": self.precision,
        }
        arrays: dict[str, NDArray[Any]] = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8).copy()}
        for i, sums in enumerate([self._joint, *self._partial.values()]):
            arrays[f"{i}.n"] = np.array([sums.n])
            if sums.n:
                arrays |= {f"{i}.mean": sums.mean, f"{i}.m2": sums.m2}
        return {prefix + key: value for key, value in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> Self:
        """The moments that :meth:`to_arrays` wrote.

        Raises:
            ValueError: If the arrays are something else.
        """
        try:
            header = json.loads(arrays[prefix + "header"].tobytes())
            if header["format"] != _FORMAT or header["version"] != _VERSION:
                raise ValueError(f"not {_FORMAT} version {_VERSION}: {header['format']} {header['version']}")
            moments = cls(dict(header["inputs"]), header["precision"])
            widths = [sum(moments.dims.values()), *moments.dims.values()]
            read = [_sums(arrays, f"{prefix}{i}.", width) for i, width in enumerate(widths)]
        except (KeyError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"not {_FORMAT}: {error!r}") from error
        moments._joint = read[0]
        moments._partial = dict(zip(moments.dims, read[1:], strict=True))
        return moments

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file."""
        safetensors.numpy.save_file(self.to_arrays(), str(path))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what :meth:`save` wrote.

        Raises:
            ValueError: If the file is corrupt or something else.
        """
        return cls.from_arrays(load_arrays(path))


def _sums(arrays: Mapping[str, NDArray[Any]], prefix: str, width: int) -> Sums:
    n = int(arrays[prefix + "n"][0])
    return Sums(n, arrays[prefix + "mean"], arrays[prefix + "m2"]) if n else Sums.zeros(width)


def merge_all(parts: Iterable[Moments]) -> Moments:
    """Merges in a fixed pairwise tree over the given order: same parts, same order, same bits.

    Raises:
        ValueError: If there is nothing to merge.
    """
    level = list(parts)
    if not level:
        raise ValueError("no moments to merge")
    while len(level) > 1:
        pairs = [level[i].merge(level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]
