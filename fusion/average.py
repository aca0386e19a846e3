"""Averages of aligned inputs, all of them present.

Missing inputs are the alignment's business: ``alignment.fuse`` fills them in and then averages.
"""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from barycenter.fusion._posterior import FactorModel
from barycenter.fusion.arrays import FloatArray
from barycenter.fusion.validation import Views, as_matrix, check_views, constant_columns, present_rows

AVERAGES = ("mean", "weighted", "spherical", "posterior")


def resolve(method: str, weights: Mapping[str, float] | None, names: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    """The method that ``auto`` chooses, and one weight per input summing to 1.

    Raises:
        ValueError: On an unknown method, weights that do not fit the inputs, or ``weighted`` without weights.
    """
    if method == "auto":
        method = "mean" if weights is None else "weighted"
    if method not in AVERAGES:
        raise ValueError(f"unknown average {method!r}; expected one of auto, {', '.join(AVERAGES)}")
    if weights is None:
        if method == "weighted":
            raise ValueError("average 'weighted' needs weights={name: weight}")
        return method, {name: 1 / len(names) for name in names}
    if method in ("mean", "posterior"):
        raise ValueError(f"average {method!r} takes no weights; use 'weighted' or 'spherical'")
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights must be {{name: weight}}, not {type(weights).__name__}")
    if set(weights) != set(names):
        raise ValueError(f"weights for {', '.join(weights)}; expected one for each of {', '.join(names)}")
    if not all(isinstance(weight, Real) for weight in weights.values()):
        raise TypeError(f"weights must be numbers: {dict(weights)}")
    total = float(sum(weights.values()))
    if not (np.isfinite(total) and total > 0 and min(weights.values()) >= 0):
        raise ValueError(f"weights must be at least 0, finite and not all 0: {dict(weights)}")
    return method, {name: float(weights[name]) / total for name in names}


def combine(aligned: Views, method: str, weights: Mapping[str, float]) -> FloatArray:
    """The mean, weighted or spherical average with weights that sum to 1."""
    arrays = {name: np.asarray(aligned[name]) for name in weights}
    if method == "spherical":
        arrays = {name: _unit(values) for name, values in arrays.items()}
    dtype = np.result_type(*arrays.values())
    total = np.zeros(next(iter(arrays.values())).shape, dtype)
    for name, values in arrays.items():
        total += values * dtype.type(weights[name])
    return _unit(total) if method == "spherical" else np.asarray(total)


def _unit(values: FloatArray) -> FloatArray:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(norms > 0, norms, 1))


def average(aligned: Views, method: str = "mean", weights: Mapping[str, float] | None = None) -> FloatArray:
    r"""Averages complete aligned inputs.

    - ``mean``: :math:`\frac1M \sum_m a_m`.
    - ``weighted``: :math:`\sum_m w_m a_m / \sum_m w_m`.
    - ``spherical``: the (weighted) mean of the unit vectors, brought back to the unit sphere.
    - ``posterior``: :math:`E[z | a_1 \dots a_M]` under probabilistic CCA (Bach and Jordan 2005) with the correlations
      of the rows given; for three and more inputs factor analysis with block-diagonal noise, by EM.

    Args:
        aligned: ``{name: (n, dim)}``, equal shapes, finite.
        method: As above; ``auto`` is ``weighted`` with weights, else ``mean``.
        weights: One per input for ``weighted`` and ``spherical``.

    Returns:
        (n, dim), float32 unless an input is float64.

    Raises:
        ValueError: On unequal shapes, non-finite values, or weights that do not fit.

    >>> average({"a": np.array([[1.0, 0.0]]), "b": np.array([[0.0, 1.0]])}).tolist()
    [[0.5, 0.5]]
    >>> average({"a": np.array([[1.0]]), "b": np.array([[4.0]])}, "weighted", {"a": 2, "b": 1}).tolist()
    [[2.0]]
    """
    arrays = {name: as_matrix(name, values) for name, values in check_views(aligned).items()}
    shapes = {name: values.shape[1] for name, values in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"aligned inputs differ in width: {shapes}")
    for name, values in arrays.items():
        missing = np.flatnonzero(~present_rows(name, values))
        if len(missing):
            raise ValueError(
                f"{name}: row {missing[0]} is missing; average takes complete rows, `alignment.fuse` fills them in"
            )
    method, shares = resolve(method, weights, tuple(arrays))
    return _posterior(arrays) if method == "posterior" else combine(arrays, method, shares)


def _posterior(arrays: dict[str, FloatArray]) -> FloatArray:
    dtype = np.result_type(*arrays.values())
    standard = []
    for values in arrays.values():
        centered = values - values.mean(axis=0, dtype=np.float64)
        centered[:, constant_columns(values)] = 0.0
        deviation = centered.std(axis=0)
        standard.append(centered / np.where(deviation > 0, deviation, 1))
    together = np.hstack(standard)
    matrix = together.T @ together / max(len(together), 1)
    width = standard[0].shape[1]
    model = FactorModel.fit(matrix, len(standard), np.diag(matrix[:width, -width:]))
    gains = model.gains(range(len(standard)))
    fused = np.sum([a @ g for a, g in zip(standard, gains, strict=True)], axis=0)
    return np.asarray(fused, dtype)
