"""How many held-out components are real: permutation of groups, with the maximum statistic."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.sample import Sample
from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.moments import FoldMoments
from barycenter.fusion.splits import fold_of
from barycenter.fusion.validation import Views, constant_columns

Rows = NDArray[np.int64]

_ROUNDING = 1e-5


@dataclass(frozen=True)
class Significance:
    """What survives the permutation test.

    Attributes:
        heldout_correlations: (dim,) correlation of each component on rows its weights never saw.
        noise_edge: The largest correlation that chance reaches in any component, at the level asked for.
        n_significant: Number of components above the edge.
    """

    heldout_correlations: Float64
    noise_edge: float
    n_significant: int


def significance(
    alignment: LinearAlignment,
    views: Views,
    groups: Iterable[object] | None = None,
    permutations: int = 39,
    level: float = 0.05,
    seed: int = 0,
) -> Significance:
    """Compares held-out correlations with those of inputs paired at random, refitted for every pairing.

    Inside every fold, groups of equal size exchange their rows of all inputs but the first, so that an input's own
    moments, and their eigendecompositions, stay; only cross-products and one small problem a fold are computed anew,
    at the ridge chosen on the true pairs. The maximum over components controls the chance of any false claim
    (Westfall and Young 1993). A group whose size is met only once in a fold keeps its pairs, which can only raise
    the edge.

    Args:
        alignment: Parameters to fit with; it is not changed. Linear methods only: for kernel-cca hand over CCA and
            random features.
        views: ``{name: (n, d)}`` of two or more inputs, in memory; rows that lack one are left out.
        groups: n values; rows with equal ones are not independent and move together.
        permutations: Number of random pairings, at least 1 / level - 1.
        level: Chance of claiming any component when there is none.
        seed: Of the pairings.

    Raises:
        ValueError: On fewer than two inputs, too few rows to hold any out, or too few permutations for the level.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(300, 1))
    >>> views = {m: np.hstack([z, rng.normal(size=(300, 2))]) for m in ("a", "b")}
    >>> from barycenter.fusion.alignment import CCA
    >>> significance(CCA(regularization=0.1), views).n_significant
    1
    """
    arrays, given = _complete(views, groups, permutations, level)

    folds = FoldMoments.of(arrays, alignment.folds, given, alignment.precision)
    fitted = clone(alignment).fit_moments(folds)
    found = fitted.heldout_correlations_
    if np.isnan(found).any():
        raise ValueError(f"{len(given)} rows have every input; too few for {alignment.folds} folds")
    number = fold_of(given, alignment.folds)
    rows = [np.flatnonzero(number == k) for k in range(alignment.folds)]
    labels = np.unique(given, return_inverse=True)[1]
    _warn_if_stuck([labels[mine] for mine in rows])
    centered = [_centered(arrays, mine, alignment.precision) for mine in rows]
    blocks = [_blocks(labels[mine]) for mine in rows]
    rng = np.random.default_rng(seed)
    highest = []
    for _ in range(permutations):
        shuffled = _shuffled(folds, centered, blocks, rng)
        highest.append(float(fitted.correlate_held_out(shuffled, [fitted.regularization_]).max()))
    return _judged(found, highest, level)


def _judged(found: Float64, highest: list[float], level: float) -> Significance:
    edge = sorted(highest)[int(np.ceil((len(highest) + 1) * (1 - level))) - 1]
    return Significance(found, edge, int((found > edge + _ROUNDING).sum()))


def _complete(
    views: Views, groups: Iterable[object] | None, permutations: int, level: float
) -> tuple[Views, NDArray[np.str_]]:
    """The rows that have every input, and their groups, once the test can be made at all."""
    if len(views) < 2:
        raise ValueError("significance needs at least two inputs")
    if (permutations + 1) * level < 1:
        raise ValueError(f"{permutations} permutations cannot tell at level {level}")
    rows = Sample(views, None if groups is None else list(groups)).complete()
    return rows.views, np.array([str(group) for group in rows.groups or ()], dtype=str)


def significance_held_out(
    aligned: Views, groups: Iterable[object] | None = None, permutations: int = 199, level: float = 0.05, seed: int = 0
) -> Significance:
    """The same question of rows that no fit has seen, for any fitted alignment: nothing is fitted again.

    Groups of equal size exchange their rows of all inputs but the first; the edge is the level of the maximum over
    components.

    Args:
        aligned: ``{name: (n, dim)}`` of two or more inputs, as :meth:`Alignment.transform` gives held-out rows; rows
            that lack one are left out.
        groups: n values; rows with equal ones move together.
        permutations: Number of random pairings, at least 1 / level - 1.
        level: Chance of claiming any component when there is none.
        seed: Of the pairings.

    Raises:
        ValueError: On fewer than two inputs, fewer than three complete rows, or too few permutations for the level.

    >>> z = np.random.default_rng(0).normal(size=(200, 2))
    >>> noise = np.random.default_rng(1).normal(size=(200, 1))
    >>> significance_held_out({"a": z, "b": np.hstack([z[:, :1], noise])}).n_significant
    1
    """
    arrays, given = _complete(aligned, groups, permutations, level)
    if len(given) < 3:
        raise ValueError(f"{len(given)} held-out rows have every input; too few to correlate")
    labels = np.unique(given, return_inverse=True)[1]
    _warn_if_stuck([labels])
    blocks = _blocks(labels)
    first, *others = (_standardized(values) for values in arrays.values())
    rng = np.random.default_rng(seed)
    found = _mean_correlation([first, *others])
    highest = [
        float(_mean_correlation([first, *(values[_pairing(blocks, rng)] for values in others)]).max())
        for _ in range(permutations)
    ]
    return _judged(found, highest, level)


def _standardized(values: FloatArray) -> FloatArray:
    """Columns of mean zero and length one; constant ones are zero."""
    centered = values - values.mean(axis=0, dtype=np.float64)
    centered[:, constant_columns(values)] = 0.0
    length = np.sqrt((centered**2).sum(axis=0))
    return np.asarray(centered / np.where(length > 0, length, 1.0), dtype=np.float32)


def _mean_correlation(standardized: list[FloatArray]) -> Float64:
    pairs = [np.einsum("ij,ij->j", a, b) for a, b in combinations(standardized, 2)]
    return np.asarray(np.mean(pairs, axis=0, dtype=np.float64))


def _centered(arrays: Views, rows: Rows, precision: str) -> dict[str, FloatArray]:
    taken = {name: values[rows] for name, values in arrays.items()}
    return {name: (v - v.mean(axis=0, dtype=np.float64)).astype(precision) for name, v in taken.items()}


def _shuffled(
    folds: FoldMoments, centered: list[dict[str, FloatArray]], blocks: list["_Blocks"], rng: np.random.Generator
) -> FoldMoments:
    """Fold moments of randomly paired inputs; single inputs' eigendecompositions are carried over."""
    parts = []
    for part, inputs, mine in zip(folds, centered, blocks, strict=True):
        first, *others = inputs
        moved = {first: inputs[first]} | {name: inputs[name][_pairing(mine, rng)] for name in others}
        pairs = combinations(inputs, 2)
        parts.append(part.with_cross({(a, b): (moved[a].T @ moved[b]).astype(np.float64) for a, b in pairs}))
    shuffled = FoldMoments(parts)
    for new, old in zip(shuffled.leave_one_out(), folds.leave_one_out(), strict=True):
        keys = [("spectrum", (name,)) for name in old.names]
        new.cache.update({key: old.cache[key] for key in keys if key in old.cache})
    return shuffled


def _warn_if_stuck(labels: list[Rows]) -> None:
    stuck, total = 0, 0
    for mine in labels:
        sizes = np.unique(mine, return_counts=True)[1]
        values, counts = np.unique(sizes, return_counts=True)
        stuck += int(values[counts == 1].sum())
        total += len(mine)
    if stuck > total / 2:
        warnings.warn(f"{stuck} of {total} rows are in groups without one of equal size in their fold", stacklevel=3)


class _Blocks(NamedTuple):
    """The rows of each group, found once for all pairings.

    Attributes:
        order: The rows, sorted by group.
        starts: Where each group begins among them.
        alike: The groups of each size.
        group: The group of each of them.
        within: Its place in its group.
    """

    order: Rows
    starts: Rows
    alike: list[Rows]
    group: Rows
    within: Rows


def _blocks(labels: Rows) -> _Blocks:
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    alike = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    group = np.repeat(np.arange(len(starts)), sizes)
    return _Blocks(order, starts, alike, group, np.arange(len(labels)) - starts[group])


def _pairing(blocks: _Blocks, rng: np.random.Generator) -> Rows:
    """For each row its partner: groups of equal size exchange their rows in order."""
    partner = np.arange(len(blocks.starts))
    for alike in blocks.alike:
        partner[alike] = rng.permutation(alike)
    rows = np.empty(len(blocks.order), dtype=np.int64)
    rows[blocks.order] = blocks.order[blocks.starts[partner[blocks.group]] + blocks.within]
    return rows
