"""What a probe compares: ways to make one vector of several inputs, each with its own way to bear a missing one."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from barycenter.fusion.alignment.imputation import Imputer
from barycenter.fusion.arrays import FloatArray
from barycenter.fusion.validation import Views, as_matrix, check_views, constant_columns, present_rows

Representation = Callable[[Views], FloatArray]
"""Makes (n, p) of views; a row that it can say nothing about is NaN."""


def baseline_representations(training: Views, imputer: Imputer, dim: int) -> dict[str, Representation]:
    """Every candidate of the probe but ``fused``, by its name in the report.

    Both concatenations give every input the same total variance: of raw scale, the longer vectors drown the others
    under one ridge (2,008 emoji, MiniLM beside MobileNetV2: 0.820 raw, 0.945 so).

    Args:
        training: Views of the training rows; whatever is fitted is fitted on them.
        imputer: Conditional expectation, fitted on the training rows.
        dim: Width of ``pca_mean``.
    """
    names = list(training)
    widths = {name: as_matrix(name, values[:1]).shape[1] for name, values in training.items()}
    projections = {name: _principal(present_part(name, values), dim) for name, values in training.items()}
    means = {name: _mean(present_part(name, values)) for name, values in training.items()}
    scales = {name: _unit_inertia(present_part(name, values)) for name, values in training.items()}
    return {name: itemgetter(name) for name in names} | {
        "naive_mean": lambda views: _mean_of_present([_pad(views[name], max(widths.values())) for name in names]),
        "pca_mean": lambda views: _mean_of_present(
            [_pad((views[name] - projections[name][0]) @ projections[name][1], dim) for name in names]
        ),
        "concat": lambda views: _stacked({name: _filled(views[name], means[name]) for name in names}, scales),
        "concat_imputed": lambda views: _stacked(imputer.impute(views), scales),
    }


def withhold(views: Views, name: str) -> dict[str, FloatArray]:
    """The same rows with one input missing.

    >>> withhold({"a": np.zeros((2, 1)), "b": np.ones((2, 1))}, "a")["a"].ravel().tolist()
    [nan, nan]
    """
    return {other: np.full_like(values, np.nan) if other == name else values for other, values in views.items()}


def take(views: Views, rows: NDArray[np.generic]) -> dict[str, FloatArray]:
    """Some rows of every input."""
    return {name: values[rows] for name, values in views.items()}


def presence(views: Views) -> dict[str, NDArray[np.bool_]]:
    """(n,) for every input: which rows have it."""
    return {name: present_rows(name, as_matrix(name, values)) for name, values in check_views(views).items()}


def present_part(name: str, values: FloatArray) -> FloatArray:
    """The rows that are there."""
    values = as_matrix(name, values)
    return values[present_rows(name, values)]


def _mean(values: FloatArray) -> NDArray[np.float64]:
    return values.mean(axis=0, dtype=np.float64) if len(values) else np.zeros(values.shape[1])


def _principal(values: FloatArray, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and the leading ``dim`` principal directions, as columns."""
    mean = _mean(values)
    centered = values - mean
    width = values.shape[1]
    kept = (max(0, width - dim), width - 1)
    _, vectors = scipy.linalg.eigh(centered.T @ centered, subset_by_index=kept, check_finite=False)
    return mean.astype(np.float32), vectors[:, ::-1].astype(np.float32)


def _pad(values: FloatArray, width: int) -> FloatArray:
    """Zeros on the right; a missing row stays NaN throughout."""
    padded = np.zeros((len(values), width), dtype=values.dtype)
    padded[:, : values.shape[1]] = values
    padded[np.isnan(values[:, 0])] = np.nan
    return padded


def _mean_of_present(parts: Sequence[FloatArray]) -> FloatArray:
    there = np.sum([~np.isnan(part[:, 0]) for part in parts], axis=0)
    total = np.sum([np.nan_to_num(part) for part in parts], axis=0)
    mean: FloatArray = total / np.where(there, there, np.nan)[:, None]
    return mean


def _filled(values: FloatArray, mean: NDArray[np.float64]) -> FloatArray:
    return np.where(np.isnan(values), mean.astype(values.dtype), values)


def _unit_inertia(values: FloatArray) -> float:
    """The factor that brings the total variance to one; 1 for an input without variance."""
    total = float(values[:, ~constant_columns(values)].var(axis=0, dtype=np.float64).sum()) if len(values) else 0.0
    return 1 / np.sqrt(total) if total > 0 else 1.0


def _stacked(views: Mapping[str, FloatArray], scales: Mapping[str, float]) -> FloatArray:
    return np.hstack([views[name] * views[name].dtype.type(scale) for name, scale in scales.items()])
