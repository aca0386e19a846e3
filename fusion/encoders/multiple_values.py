"""Several values a row: equal ones encoded once, the vectors of a row averaged."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.encoders.base import Encoder
from barycenter.fusion.encoders.pipeline import EmbeddingResult, Pipeline
from barycenter.fusion.errors import BadInputError, Reason


@dataclass(frozen=True, slots=True)
class BadValue:
    """One of a row's several values that could not be encoded; the row is kept with the others."""

    row: int
    position: int
    reason: str
    detail: str | None


@dataclass(slots=True)
class PooledResult(EmbeddingResult):
    """What came of n rows: means of their values, ok where any value was encoded; batch size 0: nothing was batched.

    Attributes:
        counts: (n,) how many values each mean is over.
        bad: Values left out of the mean of a row that is ok, and those after the first of one that is not.
        encoded: Values that went through the encoder; the others equal one of them.
    """

    counts: NDArray[np.int32]
    bad: list[BadValue]
    encoded: int

    def reject_row(self, row: int, error: BadInputError) -> None:
        """Takes a row out as a whole."""
        if not self.vectors.flags.writeable:
            self.vectors = self.vectors.copy()
        self.vectors[row], self.ok[row], self.counts[row] = 0.0, False, 0
        self.reasons[row], self.details[row] = str(error.reason), error.detail
        self.bad = [value for value in self.bad if value.row != row]


def embed_unique(
    pipeline: Pipeline, values: Sequence[object], identities: Sequence[Hashable], *, batch_size: int
) -> tuple[EmbeddingResult, int]:
    """What came of n values, as :meth:`Pipeline.embed`, and how many were encoded: those of equal identities once.

    Args:
        pipeline: With the encoder.
        values: n raw values or callables.
        identities: n; None is like no other.
        batch_size: Tokens (text) or rows (others) a batch may hold.
    """
    first: dict[Hashable, int] = {}
    chosen: list[int] = []
    inverse = np.empty(len(values), np.int64)
    for number, identity in enumerate(identities):
        place = len(chosen) if identity is None else first.setdefault(identity, len(chosen))
        if place == len(chosen):
            chosen.append(number)
        inverse[number] = place
    if len(chosen) == len(values):
        return pipeline.embed(values, batch_size=batch_size), len(values)
    once = pipeline.embed([values[number] for number in chosen], batch_size=batch_size)
    places = inverse.tolist()
    reasons, details = ([words[place] for place in places] for words in (once.reasons, once.details))
    spread = replace(once, vectors=once.vectors[inverse], ok=once.ok[inverse], reasons=reasons, details=details)
    return spread, len(chosen)


def embed_vectors(encoder: Encoder, column: pa.Array) -> EmbeddingResult:
    """Takes a column of vectors as it is; those that cannot be taken whole go through the encoder's own checks.

    Args:
        encoder: A vector encoder.
        column: Lists of numbers, of fixed size or not.
    """
    dim = encoder.dim
    result = EmbeddingResult.empty(len(column), dim)
    vectors, has_value = result.vectors, result.ok
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        lengths = pa.compute.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        has_value = np.asarray(lengths == dim)
        values = column.flatten() if has_value.all() else column.filter(pa.array(has_value)).flatten()
        if values.null_count or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
            has_value[:] = False
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                taken = values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, dim)
                finite = np.isfinite(taken @ np.ones(dim, np.float32))
            if has_value.all() and finite.all():
                vectors = taken
            else:
                has_value[np.flatnonzero(has_value)[~finite]] = False
                vectors[has_value] = taken[finite]
    for row in np.flatnonzero(~has_value).tolist():
        try:
            vectors[row] = encoder.encode([encoder.prepare(column[row].as_py())])[0]
            has_value[row] = True
        except BadInputError as error:
            result.reasons[row], result.details[row] = str(error.reason), error.detail
    return replace(result, vectors=vectors, ok=has_value)


def _rescale_weights(scaled_weights: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights divided, row by row, by the power of two that brings the largest near 1: exact, and no sum overflows.

    >>> _rescale_weights(np.array([1e308, 1e308, 3.0]), np.array([0, 2, 3])).round(2).tolist()
    [0.56, 0.56, 0.75]
    """
    _, exponents = np.frexp(np.maximum.reduceat(scaled_weights, offsets[:-1]))
    return np.asarray(np.ldexp(scaled_weights, -np.repeat(exponents, np.diff(offsets))))


def pool_values(
    values: EmbeddingResult, encoded: int, offsets: NDArray[np.int64], weights: NDArray[np.float64] | None = None
) -> PooledResult:
    """Averages the values of each row.

    Args:
        values: What came of m values.
        encoded: See :class:`PooledResult`.
        offsets: (n + 1,) where the values of each row begin; every row has at least one.
        weights: (m,) weight of each value; those that are negative or not finite make their value a bad one.
    """
    n = len(offsets) - 1
    if n == len(values.ok) and weights is None:
        counts = values.ok.astype(np.int32)
        same = (values.vectors, values.ok, values.reasons, values.details, values.seconds, values.batch_size)
        return PooledResult(*same, counts, [], encoded)
    reasons, details, ok = list(values.reasons), list(values.details), values.ok.copy()
    scaled_weights = ok.astype(np.float64)
    if weights is not None:
        for position in np.flatnonzero(ok & ~(np.isfinite(weights) & (weights >= 0))).tolist():
            ok[position], reasons[position] = False, str(Reason.NOT_NUMERIC)
            details[position] = f"its weight is {weights[position]}"
        scaled_weights = np.where(ok, weights, 0.0)
    starts = offsets[:-1]
    if weights is not None and n:
        scaled_weights = _rescale_weights(scaled_weights, offsets)
    counts = np.add.reduceat(ok.astype(np.int32), starts) if n else np.zeros(0, np.int32)
    total = np.add.reduceat(scaled_weights, starts) if n else np.zeros(0)
    has_value = total > 0
    sums = (
        np.add.reduceat(values.vectors * scaled_weights[:, None], starts, axis=0)
        if n
        else np.zeros((0, values.vectors.shape[1]))
    )
    means = np.divide(sums, total[:, None], out=np.zeros_like(sums), where=has_value[:, None]).astype(np.float32)
    left = np.where(has_value, counts, 0).astype(np.int32)
    nothing: list[str | None] = [None] * n
    pooled = PooledResult(
        means, has_value, nothing, nothing.copy(), values.seconds, values.batch_size, left, [], encoded
    )
    row_of = np.repeat(np.arange(n), np.diff(offsets))
    for row in np.flatnonzero(~has_value & (counts > 0)).tolist():
        pooled.reasons[row], pooled.details[row] = str(Reason.NOT_NUMERIC), "its weights sum to 0"
    for position in np.flatnonzero(~ok).tolist():
        row = int(row_of[position])
        if has_value[row] or pooled.reasons[row] is not None:
            number = position - int(starts[row])
            pooled.bad.append(BadValue(row, number, str(reasons[position]), details[position]))
        else:
            pooled.reasons[row], pooled.details[row] = reasons[position], details[position]
    return pooled
