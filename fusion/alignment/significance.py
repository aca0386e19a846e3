"""How many held-out components are real: permutation of groups, with the maximum statistic."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from fusion._views import FloatArray, Views, as_matrix, common_rows, present_rows
from fusion.alignment.base import Alignment
from fusion.splits import fold_of

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Significance:
    """What survives the permutation test.

    Attributes:
        heldout_correlations: (dim,) correlation of each component on rows its weights never saw, mean over folds.
        noise_edge: The largest correlation that chance reaches in any component, at the level asked for.
        n_significant: Number of components above the edge.
    """

    heldout_correlations: Float64
    noise_edge: float
    n_significant: int


def significance(
    alignment: Alignment,
    views: Views,
    groups: Iterable[object] | None = None,
    folds: int = 5,
    permutations: int = 200,
    level: float = 0.05,
    seed: int = 0,
) -> Significance:
    """Compares held-out correlations with those of the same held-out rows, paired at random group by group.

    The alignment is refitted once per fold. Given its weights, held-out pairs are exchangeable when the inputs are
    independent, so nothing is refitted under permutation; the maximum over components controls the error of any
    false claim (Westfall and Young 1993). A group is paired with the rows of one other group.

    Args:
        alignment: Parameters to fit with; it is not changed.
        views: ``{name: (n, d)}`` of two or more inputs; rows that lack one are left out.
        groups: n values; rows with equal ones are not independent and move together.
        folds: Number of folds.
        permutations: Number of random pairings.
        level: Chance of claiming any component when there is none.
        seed: Of the pairings.

    Raises:
        ValueError: On fewer than two inputs, or fewer than two folds with 3 complete rows.

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(300, 1))
    >>> views = {m: np.hstack([z, rng.normal(size=(300, 2))]) for m in ("a", "b")}
    >>> from fusion.alignment import CCA
    >>> significance(CCA(regularization=0.1), views).n_significant
    1
    """
    if len(views) < 2:
        raise ValueError("significance needs at least two inputs")
    n = common_rows(views)
    labels = np.arange(n) if groups is None else np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)[1]
    if len(labels) != n:
        raise ValueError(f"{len(labels)} groups for {n} rows")
    fold = fold_of(labels.tolist(), folds)
    arrays = {name: as_matrix(name, values) for name, values in views.items()}
    complete = np.logical_and.reduce([present_rows(name, values) for name, values in arrays.items()])
    rng = np.random.default_rng(seed)
    observed, chance = [], []
    for number in range(folds):
        held = np.flatnonzero(complete & (fold == number))
        train = np.flatnonzero(fold != number)
        if len(held) < 3 or complete[train].sum() < 3:
            continue
        fitted = clone(alignment).fit({m: v[train] for m, v in arrays.items()}, labels[train])
        variates = _standardised(fitted.transform({m: v[held] for m, v in arrays.items()}))
        observed.append(_correlations(variates, [np.arange(len(held))] * len(variates)))
        draws = [
            [np.arange(len(held)), *(_pairing(labels[held], rng) for _ in variates[1:])] for _ in range(permutations)
        ]
        chance.append(np.stack([_correlations(variates, draw) for draw in draws]))
    if len(observed) < 2:
        raise ValueError(f"{int(complete.sum())} rows have every input; too few for {folds} folds")
    dim = min(len(r) for r in observed)
    found = np.mean([r[:dim] for r in observed], axis=0)
    highest = np.mean([r[:, :dim] for r in chance], axis=0).max(axis=1)
    edge = float(np.quantile(highest, 1 - level, method="higher"))
    return Significance(found, edge, int((found > edge).sum()))


def _standardised(aligned: dict[str, FloatArray]) -> list[Float64]:
    out = []
    for values in aligned.values():
        centred = values - values.mean(axis=0, dtype=np.float64)
        norm = np.linalg.norm(centred, axis=0)
        out.append(centred / np.where(norm > 0, norm, 1))
    return out


def _correlations(variates: list[Float64], rows: list[NDArray[np.int64]]) -> Float64:
    pairs = combinations(range(len(variates)), 2)
    found = [np.einsum("ij,ij->j", variates[a][rows[a]], variates[b][rows[b]]) for a, b in pairs]
    return np.asarray(np.mean(found, axis=0))


def _pairing(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """For each row a row of the group that its group is paired with; a larger group wraps around a smaller one."""
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    partner = rng.permutation(len(starts))
    group = np.repeat(np.arange(len(starts)), sizes)
    within = np.arange(len(labels)) - starts[group]
    rows = np.empty(len(labels), dtype=np.int64)
    rows[order] = order[starts[partner[group]] + within % sizes[partner[group]]]
    return rows
