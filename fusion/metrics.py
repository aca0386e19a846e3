"""Figures of merit: retrieval, accuracy, R2, and the gap between two models with its interval."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from barycenter.fusion.arrays import FloatArray
from barycenter.fusion.parameters import check_number
from barycenter.fusion.validation import as_matrix

_BLOCK_BYTES = 64 * 2**20
_TIE = 1e-6


def retrieval(
    queries: NDArray[np.floating], candidates: NDArray[np.floating], temperature: float = 0.0
) -> dict[str, float]:
    """How well queries find their own candidate by cosine similarity; row i matches row i.

    Candidates as similar as the match, to 1e-6, count half: duplicates give their middle rank.

    Args:
        queries: (n, d).
        candidates: (n, d).
        temperature: Where above 0, half of the soft maximum of a candidate's similarities to all queries is taken off
            each: what is near to everything is no find (inverted softmax, Smith et al. 2017).

    Returns:
        ``r1``, ``r5``, ``r10``: share of queries whose match is among the first 1, 5, 10; ``mrr``: mean of 1 / rank.

    Raises:
        ValueError: If the shapes differ, there is no row, or one is not finite.

    >>> retrieval(np.eye(3), np.eye(3))["r1"]
    1.0
    """
    ranks = match_ranks(queries, candidates, temperature)
    result = {f"r{k}": float((ranks <= k).mean()) for k in (1, 5, 10)}
    return result | {"mrr": float((1 / ranks).mean())}


def match_ranks(
    queries: NDArray[np.floating], candidates: NDArray[np.floating], temperature: float = 0.0
) -> NDArray[np.float64]:
    """(n,) rank of each query's own candidate, 1 for the nearest; see :func:`retrieval`."""
    asked, given = (finite_rows(name, v) for name, v in (("queries", queries), ("candidates", candidates)))
    if asked.shape != given.shape or not len(asked):
        raise ValueError(f"expected two (n, d) arrays of equal shape, n >= 1, got {asked.shape}, {given.shape}")
    check_number("temperature", temperature)
    asked, given = unit_rows(asked), unit_rows(given)
    crowd = _crowding(given, asked, temperature) / 2 if temperature else np.zeros(len(given), np.float32)
    n = len(asked)
    ranks = np.empty(n)
    for start, stop in _blocks(n):
        similarity = asked[start:stop] @ given.T - crowd
        own = similarity[np.arange(stop - start), np.arange(start, stop)][:, None]
        above = (similarity > own + _TIE).sum(axis=1)
        level = (np.abs(similarity - own) <= _TIE).sum(axis=1) - 1
        ranks[start:stop] = 1 + above + level / 2
    return ranks


def _crowding(given: NDArray[np.float32], asked: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """(n,) soft maximum of each candidate's similarities to the queries."""
    crowd = np.empty(len(given), np.float32)
    for start, stop in _blocks(len(given)):
        crowd[start:stop] = logsumexp(temperature * (given[start:stop] @ asked.T), axis=1) / temperature
    return crowd


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    step = max(1, _BLOCK_BYTES // (4 * n))
    for start in range(0, n, step):
        yield start, min(start + step, n)


def chance_r10(n: int) -> float:
    """What ``r10`` is for n candidates in random order.

    >>> chance_r10(40)
    0.25
    """
    return min(1.0, 10 / max(n, 1))


def accuracy(y: Sequence[Any] | NDArray[Any], predicted: Sequence[Any] | NDArray[Any]) -> float:
    """Share of equal values; NaN without rows.

    >>> accuracy(["a", "b"], ["a", "c"])
    0.5
    """
    hits = correct(y, predicted)
    return float(hits.mean()) if len(hits) else float("nan")


def correct(y: Sequence[Any] | NDArray[Any], predicted: Sequence[Any] | NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) whether each value is the predicted one; label lists are compared as sets."""
    if len(y) != len(predicted):
        raise ValueError(f"{len(y)} true values and {len(predicted)} predictions; both must be as many")
    several = (list, tuple, set, np.ndarray)
    pairs = zip(y, predicted, strict=True)
    return np.array([set(a) == set(b) if isinstance(a, several) else bool(a == b) for a, b in pairs], dtype=bool)


def r2(y: NDArray[np.floating], predicted: NDArray[np.floating]) -> float:
    """Share of variance explained, over all columns; NaN without variance.

    >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
    1.0
    """
    if np.shape(y) != np.shape(predicted):
        raise ValueError(f"true values of shape {np.shape(y)} and predictions of shape {np.shape(predicted)}")
    y, predicted = np.asarray(y, np.float64), np.asarray(predicted, np.float64)
    variance = float(((y - np.mean(y, axis=0)) ** 2).sum()) if len(y) else 0.0
    return 1.0 - float(((y - predicted) ** 2).sum()) / variance if variance > 0 else float("nan")


def bootstrap_gap(
    correct_a: Sequence[Any] | NDArray[Any],
    correct_b: Sequence[Any] | NDArray[Any],
    groups: Iterable[object],
    n: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean of a - b over rows and its 95 % interval, from resampling whole groups.

    Args:
        correct_a: (rows,) score of each row by one model: 0 or 1, or any number.
        correct_b: The same rows by the other.
        groups: (rows,) rows with equal values are drawn together.
        n: Resamples.
        seed: Of the draws.

    Returns:
        Mean gap, and the 2.5 % and 97.5 % points of its bootstrap distribution.
    """
    gap = np.asarray(correct_a, dtype=np.float64) - np.asarray(correct_b, dtype=np.float64)
    if not len(gap):
        return float("nan"), float("nan"), float("nan")
    low, high = np.percentile(bootstrap_means(gap[:, None], groups, n, seed), [2.5, 97.5])
    return float(gap.mean()), float(low), float(high)


def bootstrap_means(
    values: NDArray[np.floating], groups: Iterable[object], n: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Column means of resampled rows, whole groups drawn with replacement; all columns share the draws.

    Args:
        values: (rows, k), at least one row.
        groups: (rows,) rows with equal values are drawn together.
        n: Resamples.
        seed: Of the draws.

    Returns:
        (n, k) means.

    >>> bootstrap_means(np.ones((3, 2)), "aab", n=4).tolist() == [[1.0, 1.0]] * 4
    True
    """
    numbers: dict[object, int] = {}
    code = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    size = len(numbers)
    sums = np.stack([np.bincount(code, column, size) for column in np.asarray(values, np.float64).T], axis=1)
    counts = np.bincount(code, minlength=size).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty((n, sums.shape[1]))
    block = max(1, _BLOCK_BYTES // (8 * size))
    for start in range(0, n, block):
        part = min(block, n - start)
        drawn = rng.integers(0, size, (part, size)) + size * np.arange(part)[:, None]
        times = np.bincount(drawn.ravel(), minlength=part * size).reshape(part, size).astype(np.float64)
        means[start : start + part] = (times @ sums) / (times @ counts)[:, None]
    return means


def finite_rows(name: str, values: object) -> FloatArray:
    """(n, d) floats, as they are.

    Raises:
        ValueError: If they are no matrix of numbers, or naming the first row that holds NaN or an infinite value.
    """
    array = as_matrix(name, values)
    good = np.isfinite(array).all(axis=1)
    if not good.all():
        raise ValueError(f"{name}: row {int(np.argmin(good))} is not finite")
    return array


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, d) rows at unit length; a row of zeros stays one."""
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)
