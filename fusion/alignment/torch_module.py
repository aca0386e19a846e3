"""A fitted projection as a torch module."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from barycenter.fusion.alignment._projection import Projection
from barycenter.fusion.average import resolve


class RandomFeatures(nn.Module):
    """Cosines and sines of random projections; see :class:`barycenter.fusion.alignment.KernelCCA`."""

    def __init__(self, frequencies: object) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.as_tensor(frequencies, dtype=torch.float32).clone())

    def forward(self, values: Tensor) -> Tensor:
        """(n, d) to (n, D)."""
        angles = values @ self.get_buffer("frequencies").to(values.dtype)
        scale: float = angles.shape[1] ** -0.5
        return torch.cat([angles.cos(), angles.sin()], dim=1) * scale


class FuseModule(nn.Module):
    """Projects, fills in missing inputs and averages, as the alignment's ``fuse`` does, in the type of the inputs.

    ``features`` are modules applied to inputs first.
    """

    def __init__(
        self,
        projection: Projection,
        average: str,
        weights: Mapping[str, float] | None,
        features: Mapping[str, nn.Module],
    ) -> None:
        super().__init__()
        self.names = projection.names
        self.average, shares = resolve(average, weights, self.names)
        self.shares = [shares[name] for name in self.names]
        self.dim, self.raw = projection.dim, projection.raw
        self.features = nn.ModuleList([features.get(name, nn.Identity()) for name in self.names])
        self.patterns = [tuple(self.names.index(name) for name in present) for present in projection.patterns()]
        for i, name in enumerate(self.names):
            self._buffer(f"mean_{i}", projection.means[name])
            self._buffer(f"rest_{i}", projection.means[name] - projection.means[name].astype(np.float32))
            if not self.raw:
                self._buffer(f"weights_{i}", projection.weights[name])
        whole = (*self.patterns, tuple(range(len(self.names))))
        for number, pattern in enumerate(whole):
            present = tuple(self.names[i] for i in pattern)
            if self.average == "posterior":
                for i, gain in zip(pattern, projection.posterior_gain(present).values(), strict=True):
                    self._buffer(f"gain_{number}_{i}", gain)
            elif number < len(self.patterns):
                self._buffer(f"missing_{number}", projection.missing_map(present))

    def _buffer(self, name: str, values: object) -> None:
        self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32).clone())

    def forward(self, views: dict[str, Tensor] | tuple[Tensor, ...], present: Tensor | None = None) -> Tensor:
        """Fused vectors.

        Args:
            views: ``{name: (n, d)}`` or a tuple in input order; values of missing rows do not matter.
            present: (n, inputs) boolean; by default a row is missing where all of it is NaN.

        Returns:
            (n, dim); NaN for a row with nothing there.

        Raises:
            ValueError: Without ``present``, on a row that is partly NaN or infinite (such a row gives NaN where the
                module was compiled or exported).
        """
        given = [views[name] for name in self.names] if isinstance(views, dict) else list(views)
        if present is None:
            present = torch.stack([~values.isnan().all(dim=1) for values in given], dim=1)
            if not torch.compiler.is_compiling():
                self._check(given, present)
        here = [present[:, i : i + 1] for i in range(len(given))]
        values = [self.features[i](torch.where(here[i], x, 0.0)) for i, x in enumerate(given)]
        centered = [torch.where(here[i], self._centered(i, x), 0.0) for i, x in enumerate(values)]
        aligned = [
            torch.where(here[i], values[i] if self.raw else centered[i] @ self._get(values[i], "weights", i), 0.0)
            for i in range(len(given))
        ]
        if self.average == "posterior":
            fused = self._posterior(aligned, present)
        else:
            fused = self._mean(self._filled(aligned, centered, present))
        return torch.where(present.any(dim=1, keepdim=True), fused, torch.nan)

    def _check(self, given: list[Tensor], present: Tensor) -> None:
        for i, values in enumerate(given):
            wrong = present[:, i] & ~values.isfinite().all(dim=1)
            if wrong.any():
                row = int(wrong.int().argmax())
                raise ValueError(f"{self.names[i]}: row {row} is partly NaN or infinite; a missing input is NaN only")

    def _centered(self, i: int, values: Tensor) -> Tensor:
        """As exact as if the mean were taken off in double precision: it goes in two parts."""
        return values - self._get(values, "mean", i) - self._get(values, "rest", i)

    def _base(self, like: Tensor, i: int) -> Tensor:
        """The mean of an aligned input."""
        if not self.raw:
            return like.new_zeros(())
        return self._get(like, "mean", i) + self._get(like, "rest", i)

    def _get(self, like: Tensor, kind: str, *index: int) -> Tensor:
        """A buffer or parameter in the type of the values that it meets."""
        value: Tensor = getattr(self, "_".join([kind, *map(str, index)]))
        return value.to(like.dtype)

    def trainable(self) -> Self:
        """Makes the projections parameters, to be trained with the model that this module is part of.

        Means, and the maps that fill in missing inputs, stay as they were fitted.

        Raises:
            ValueError: If the alignment projects nothing (``none``).
        """
        if self.raw:
            raise ValueError("this alignment has no projections to train")
        for i in range(len(self.names)):
            weights = self._buffers.pop(f"weights_{i}")
            assert weights is not None
            self.register_parameter(f"weights_{i}", nn.Parameter(weights))
        return self

    def _is(self, pattern: tuple[int, ...], present: Tensor) -> Tensor:
        flags = torch.tensor([i in pattern for i in range(len(self.names))], device=present.device)
        return (present == flags).all(dim=1, keepdim=True)

    def _filled(self, aligned: list[Tensor], centered: list[Tensor], present: Tensor) -> list[Tensor]:
        filled = list(aligned)
        for number, pattern in enumerate(self.patterns):
            mine = self._is(pattern, present)
            guess = torch.cat([centered[i] for i in pattern], dim=1) @ self._get(centered[0], "missing", number)
            missing = [i for i in range(len(self.names)) if i not in pattern]
            for part, i in enumerate(missing):
                own = guess[:, part * self.dim : (part + 1) * self.dim] + self._base(guess, i)
                filled[i] = torch.where(mine, own, filled[i])
        return filled

    def _mean(self, aligned: list[Tensor]) -> Tensor:
        if self.average == "spherical":
            aligned = [nn.functional.normalize(values, dim=1) for values in aligned]
        fused = torch.stack([share * values for share, values in zip(self.shares, aligned, strict=True)]).sum(dim=0)
        return nn.functional.normalize(fused, dim=1) if self.average == "spherical" else fused

    def _posterior(self, aligned: list[Tensor], present: Tensor) -> Tensor:
        fused = torch.zeros_like(aligned[0])
        for number, pattern in enumerate((*self.patterns, tuple(range(len(self.names))))):
            parts = [
                (aligned[i] - self._base(aligned[i], i)) @ self._get(aligned[i], "gain", number, i) for i in pattern
            ]
            fused = torch.where(self._is(pattern, present), torch.stack(parts).sum(dim=0), fused)
        return fused
