"""Count, mean and second moments of one set of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.validation import constant_columns

# What is left of a column's sum of squares below this share may be rounding only: the column is looked at again.
_CANCELLED = 1e-3
# Sums of squares below this have lost digits in float32, whose numbers end at 1e-38.
_VANISHING = 1e-24
# Sums of squares from here cannot be multiplied with each other in float64.
_LARGEST = 1e150


class Sums:
    """Count, mean and centered second-moment sums of one set of rows."""

    def __init__(self, n: int, mean: Float64, m2: Float64) -> None:
        self.n, self.mean, self.m2 = n, mean, m2

    @classmethod
    def zeros(cls, width: int) -> "Sums":
        """The sums of no rows."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    @classmethod
    def of_block(cls, parts: Sequence[FloatArray], buffer: FloatArray) -> "Sums":
        """Sums of the rows of horizontally stacked parts; ``buffer`` is an (at least n, p) scratch array.

        Values whose squares leave the range of the buffer's type are multiplied in float64.

        Raises:
            ValueError: Their squares leave that of float64, too.
        """
        found = cls._of_block(parts, buffer)
        if found is None and buffer.dtype != np.float64:
            found = cls._of_block(parts, np.empty((len(parts[0]), buffer.shape[1])))
        if found is None:
            largest = max(float(np.abs(part).max()) for part in parts)
            raise ValueError(f"values as large as {largest:.2g} cannot be multiplied; rescale the inputs")
        return found

    @classmethod
    def _of_block(cls, parts: Sequence[FloatArray], buffer: FloatArray) -> "Sums | None":
        """None where the buffer's type is too narrow for the products."""
        n, dtype = len(parts[0]), buffer.dtype
        shift = np.empty(buffer.shape[1])
        centered, start = buffer[:n], 0
        for part in parts:
            stop = start + part.shape[1]
            rough = np.full(n, 1 / n, part.dtype) @ part
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(part, rough, out=centered[:, start:stop], casting="same_kind")
            shift[start:stop] = rough
            start = stop
        with np.errstate(over="ignore", invalid="ignore"):
            rest = (np.ones(n, dtype) @ centered).astype(np.float64) / n
            m2 = (centered.T @ centered).astype(np.float64)
        if not np.trace(m2) < min(_LARGEST, float(np.finfo(dtype).max)):
            return None
        before = np.diagonal(m2).copy()
        small = np.flatnonzero(before < (_VANISHING if dtype != np.float64 else 0.0))
        if len(small) > len(_constant(parts, small)):
            return None
        m2 -= np.outer(rest * n, rest)
        still = _constant(parts, np.flatnonzero(np.diagonal(m2) < _CANCELLED * before))
        if len(still):
            columns, values = still[:, 0].astype(np.int64), still[:, 1]
            m2[columns], m2[:, columns] = 0.0, 0.0
            shift[columns], rest[columns] = values, 0.0
        return cls(n, shift + rest, m2)

    def __reduce__(self) -> tuple[Any, ...]:
        """Sums of no rows travel as their width."""
        if self.n == 0:
            return Sums.zeros, (len(self.mean),)
        return Sums, (self.n, self.mean, self.m2)

    def copy(self) -> "Sums":
        """Sums of their own arrays."""
        return Sums(self.n, self.mean.copy(), self.m2.copy())

    def add(self, other: "Sums") -> None:
        """Merges ``other`` into this one (Chan et al. 1983, eq. 2.1)."""
        if other.n == 0:
            return
        if self.n == 0:
            self.n, self.mean, self.m2 = other.n, other.mean.copy(), other.m2.copy()
            return
        n = self.n + other.n
        delta = other.mean - self.mean
        self.m2 += other.m2
        self.m2 += np.outer(delta * (self.n * other.n / n), delta)
        self.mean += delta * (other.n / n)
        self.n = n

    @property
    def cov(self) -> Float64:
        """Sample covariance, columns x columns."""
        return self.m2 / max(self.n - 1, 1)


def _constant(parts: Sequence[FloatArray], columns: NDArray[np.int64]) -> Float64:
    """(k, 2) which of some columns of stacked parts are constant, and their values; exact, where sums are rounded."""
    found, start = [], 0
    for part in parts:
        stop = start + part.shape[1]
        mine = columns[(columns >= start) & (columns < stop)]
        if len(mine):
            same = mine[constant_columns(part[:, mine - start])]
            found += [(column, part[0, column - start]) for column in same.tolist()]
        start = stop
    return np.array(found, dtype=np.float64).reshape(-1, 2)
