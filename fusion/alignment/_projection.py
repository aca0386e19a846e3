"""What a fitted projection is: weights, means, and a map for every pattern of missing inputs."""

from collections.abc import Mapping
from copy import copy
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion._posterior import FactorModel
from barycenter.fusion.alignment.eigenproblems import Weights, stacked
from barycenter.fusion.alignment.imputation import regression
from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.average import combine
from barycenter.fusion.moments import Moments


class Projection:
    """Aligned input m is (x_m - offset_m) W_m; missing ones are their expectation given the inputs present.

    Args:
        weights: ``{name: (d, dim)}``.
        means: ``{name: (d,)}``.
        scales: ``{name: (dim,)}`` standard deviations of the aligned components.
        agreement: (M dim, M dim) correlations of the aligned components, inputs stacked.
        canonical: (dim,) correlations, where components of two inputs correspond one to one.
        raw: Aligned is the raw input: no centring, no product.
        source: Moments to solve the maps that fill in missing inputs from, when first needed, with
        ridges: the relative ridge that fills in each input.
    """

    def __init__(
        self,
        weights: Weights,
        means: dict[str, Float64],
        scales: dict[str, Float64],
        agreement: Float64,
        canonical: Float64 | None = None,
        raw: bool = False,
        source: Moments | None = None,
        ridges: Mapping[str, float] | None = None,
    ) -> None:
        self.weights = {name: np.ascontiguousarray(block) for name, block in weights.items()}
        self.means, self.scales, self.raw = means, scales, raw
        self.agreement, self.canonical = agreement, canonical
        self._maps: dict[tuple[str, ...], Float64] = {}
        self._source, self.ridges = source, ridges or {}

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs in order."""
        return tuple(self.weights)

    @property
    def dim(self) -> int:
        """Number of components."""
        return len(next(iter(self.scales.values())))

    @cached_property
    def posterior(self) -> FactorModel:
        """The factor model of the standardized aligned inputs."""
        return FactorModel.fit(self.agreement, len(self.names), self.canonical)

    def base(self, name: str) -> Float64:
        """(dim,) the mean of the aligned input."""
        return self.means[name] if self.raw else np.zeros(self.dim)

    def patterns(self) -> list[tuple[str, ...]]:
        """Every set of present inputs that lacks at least one and has at least one."""
        flags = product([True, False], repeat=len(self.names))
        found = [tuple(m for m, here in zip(self.names, flag, strict=True) if here) for flag in flags]
        return [present for present in found if 0 < len(present) < len(self.names)]

    def missing_map(self, present: tuple[str, ...]) -> Float64:
        """(d_present, missing * dim) coefficients of the missing aligned inputs on the centered present ones."""
        if present not in self._maps:
            assert self._source is not None, "a projection has either its maps or their source"
            missing = [name for name in self.names if name not in present]
            coefficients = np.empty((sum(len(self.weights[p]) for p in present), len(missing) * self.dim))
            for ridge in {self.ridges[q] for q in missing}:
                alike = [i for i, q in enumerate(missing) if self.ridges[q] == ridge]
                cross = [stacked(self._source, present, [missing[i]]) @ self.weights[missing[i]] for i in alike]
                columns = np.concatenate([np.arange(i * self.dim, (i + 1) * self.dim) for i in alike])
                coefficients[:, columns] = regression(self._source, ridge, present, np.hstack(cross))
            self._maps[present] = coefficients
        return self._maps[present]

    def with_maps(self, maps: Mapping[tuple[str, ...], Float64]) -> "Projection":
        """A copy that fills in missing inputs by these maps; see :meth:`missing_map`."""
        changed = copy(self)
        changed._maps = self._maps | {present: np.ascontiguousarray(values) for present, values in maps.items()}
        return changed

    def precompute_missing_maps(self) -> None:
        """Solves all maps and lets go of the moments."""
        for present in self.patterns():
            self.missing_map(present)
        self._source = None

    def project(self, name: str, values: FloatArray) -> FloatArray:
        """(n, dim) aligned vectors of rows that have the input."""
        if self.raw:
            return values
        return np.asarray(_centered(values, self.means[name]) @ self.weights[name].astype(values.dtype, copy=False))

    def fuse(self, present: Mapping[str, FloatArray], method: str, shares: Mapping[str, float]) -> FloatArray:
        """(n, dim) averages of rows that all have the same inputs."""
        if method == "posterior":
            return self._posterior_mean(present)
        if method != "spherical" and len(present) == len(self.names) and not self.raw:
            return self._weighted_sum(present, shares)
        aligned = {name: self.project(name, values) for name, values in present.items()}
        missing = [name for name in self.names if name not in present]
        if missing:
            centered = np.hstack([_centered(values, self.means[name]) for name, values in present.items()])
            guess = centered @ self.missing_map(tuple(present)).astype(centered.dtype, copy=False)
            for i, name in enumerate(missing):
                base = self.base(name).astype(centered.dtype, copy=False)
                aligned[name] = guess[:, i * self.dim : (i + 1) * self.dim] + base
        return combine(aligned, method, shares)

    def _weighted_sum(self, present: Mapping[str, FloatArray], shares: Mapping[str, float]) -> FloatArray:
        """The weighted mean of complete rows, one product an input."""
        total: FloatArray | None = None
        for name, values in present.items():
            weights = (self.weights[name] * shares[name]).astype(values.dtype, copy=False)
            part = _centered(values, self.means[name]) @ weights
            total = part if total is None else np.add(total, part, out=total)
        assert total is not None
        return total

    def posterior_gain(self, present: tuple[str, ...]) -> dict[str, Float64]:
        """``{name: (dim, dim)}`` with posterior mean = sum of (aligned - base) times these."""
        gains = self.posterior.gains([self.names.index(name) for name in present])
        return {name: gain / self.scales[name][:, None] for name, gain in zip(present, gains, strict=True)}

    def _posterior_mean(self, present: Mapping[str, FloatArray]) -> FloatArray:
        total: Any = 0.0
        for name, gain in self.posterior_gain(tuple(present)).items():
            aligned = self.project(name, present[name])
            total = total + (aligned - self.base(name).astype(aligned.dtype)) @ gain.astype(aligned.dtype)
        return np.asarray(total)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but names as arrays; solves all maps first."""
        arrays: dict[str, NDArray[Any]] = {"loadings": self.posterior.loadings, "noise": self.posterior.noise}
        arrays["agreement"] = self.agreement
        if self.canonical is not None:
            arrays["canonical"] = self.canonical
        for i, name in enumerate(self.names):
            arrays |= {f"mean.{i}": self.means[name], f"scale.{i}": self.scales[name]}
            if not self.raw:
                arrays[f"weights.{i}"] = self.weights[name]
        for present in self.patterns():
            key = "".join("1" if name in present else "0" for name in self.names)
            arrays[f"missing.{key}"] = self.missing_map(present)
        return {key: np.ascontiguousarray(values) for key, values in arrays.items()}

    @classmethod
    def from_arrays(cls, names: list[str], arrays: Mapping[str, NDArray[Any]]) -> "Projection":
        """The projection that :meth:`to_arrays` wrote.

        Raises:
            KeyError: If an array is lacking.
        """
        raw = "weights.0" not in arrays
        means = {name: arrays[f"mean.{i}"] for i, name in enumerate(names)}
        weights = {n: np.eye(len(means[n])) if raw else arrays[f"weights.{i}"] for i, n in enumerate(names)}
        scales = {name: arrays[f"scale.{i}"] for i, name in enumerate(names)}
        found = cls(weights, means, scales, arrays["agreement"], arrays.get("canonical"), raw)
        found.posterior = FactorModel(arrays["loadings"], arrays["noise"])
        for present in found.patterns():
            key = "".join("1" if name in present else "0" for name in names)
            found._maps[present] = arrays[f"missing.{key}"]
        return found


def _centered(values: FloatArray, mean: Float64) -> FloatArray:
    """Differences as exact as if taken in float64, in the type of the values: the mean goes in two parts."""
    coarse = mean.astype(values.dtype)
    centered = np.subtract(values, coarse, out=np.empty_like(values, order="C"))
    if values.dtype != mean.dtype:
        centered -= (mean - coarse).astype(values.dtype)
    return centered
