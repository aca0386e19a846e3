"""Fold moments: one set of moments per cross-validation fold.

A model is cross-validated on them without reading the data again. Leave-one-out moments are merges of the other folds,
never differences.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from barycenter.fusion.moments.paired import Moments, Precision, merge_all
from barycenter.fusion.serialization import load_arrays
from barycenter.fusion.splits import fold_of
from barycenter.fusion.validation import Views, check_views, common_rows


class FoldMoments(Sequence[Moments]):
    """One :class:`Moments` per cross-validation fold.

    Args:
        parts: The folds' moments, all of the same inputs.

    Examples:
        >>> folds = FoldMoments.of({"a": np.random.default_rng(0).normal(size=(50, 2))}, folds=5)
        >>> len(folds), folds.total.n, sum(part.n for part in folds)
        (5, 50, 50)
    """

    def __init__(self, parts: Iterable[Moments]) -> None:
        self.parts = list(parts)
        if not self.parts:
            raise ValueError("no folds")
        self._total: Moments | None = None
        self._held: list[Moments] | None = None

    @classmethod
    def of(
        cls,
        views: Views,
        folds: int = 5,
        groups: Iterable[object] | None = None,
        precision: Precision = "float32",
    ) -> Self:
        """Fold moments of in-memory views.

        Args:
            views: ``{name: (n, d)}``.
            folds: Number of folds.
            groups: n values; rows with equal ones share a fold. Row numbers by default.
            precision: See :class:`Moments`.

        Raises:
            ValueError: See :meth:`Moments.of`; also if groups and rows differ in number.
        """
        arrays = check_views(views)
        dims = {name: values.shape[1] for name, values in arrays.items()}
        moments = cls(Moments(dims, precision) for _ in range(folds))
        moments.update(arrays, groups)
        return moments

    def update(self, views: Views, groups: Iterable[object] | None = None, first: int = 0) -> None:
        """Adds rows to the folds that their groups belong to: all of them, or none where one of them is wrong.

        Args:
            views: ``{name: (n, d)}``.
            groups: n values; row numbers from ``first`` by default.
            first: Number of the first row.

        Raises:
            ValueError: See :meth:`Moments.of`; also if groups and rows differ in number.
        """
        arrays = self.parts[0].checked(views, first)
        n = common_rows(arrays)
        fold = fold_of(range(first, first + n) if groups is None else groups, len(self.parts))
        if len(fold) != n:
            raise ValueError(f"{len(fold)} groups for {n} rows")
        for number, part in enumerate(self.parts):
            rows = np.flatnonzero(fold == number)
            if len(rows):
                part.add_checked(arrays, rows)
        self._total = self._held = None

    def merge(self, other: "FoldMoments") -> "FoldMoments":
        """Fold by fold, as a new object."""
        return FoldMoments(a.merge(b) for a, b in zip(self.parts, other.parts, strict=True))

    def select(self, names: Sequence[str]) -> "FoldMoments":
        """Those of some of the inputs; see :meth:`Moments.select`."""
        return FoldMoments(part.select(names) for part in self.parts)

    @property
    def total(self) -> Moments:
        """The moments of all folds together."""
        if self._total is None:
            self._total = merge_all(self.parts)
        return self._total

    def leave_one_out(self) -> list[Moments]:
        """For every fold the moments of all others, by prefix and suffix merges."""
        if self._held is None:
            self._held = list(self.iter_leave_one_out())
        return self._held

    def iter_leave_one_out(self) -> Iterator[Moments]:
        """As :meth:`leave_one_out`, one at a time and without keeping them."""
        if len(self.parts) < 2:
            return
        suffixes = [self.parts[-1]]
        for part in self.parts[-2:0:-1]:
            suffixes.append(part.merge(suffixes[-1]))
        prefix: Moments | None = None
        for part in self.parts:
            after = suffixes.pop() if suffixes else None
            rest = [moments for moments in (prefix, after) if moments is not None]
            yield rest[0] if len(rest) == 1 else rest[0].merge(rest[1])
            prefix = part if prefix is None else prefix.merge(part)

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file."""
        arrays: dict[str, NDArray[Any]] = {}
        for number, part in enumerate(self.parts):
            arrays |= part.to_arrays(f"fold{number}.")
        safetensors.numpy.save_file(arrays, str(path))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what :meth:`save` wrote.

        Raises:
            ValueError: If the file is corrupt or something else.
        """
        arrays = load_arrays(path)
        count = sum(key.endswith(".header") for key in arrays)
        if not count:
            raise ValueError(f"{path}: holds no fold moments")
        return cls(Moments.from_arrays(arrays, f"fold{number}.") for number in range(count))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: Any) -> Any:
        return self.parts[index]
