"""Alignments that are linear in features of each input, random or learned: the same moments, one map before them."""

from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.arrays import BLOCK_ROWS, FloatArray
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.fusion.splits import fold_of
from barycenter.fusion.validation import Views, as_matrix, check_rows, check_views, common_rows, present_rows


class FeatureAlignment(LinearAlignment):
    """Base of the alignments whose weights act on features of an input instead of on the input itself.

    A subclass makes the features ready (``_features`` works from then on); their moments, gathered by :meth:`fit`
    or anywhere else through :meth:`feature_moments`, give the rest.

    Attributes:
        feature_dims_: ``{name: width}`` of the features of the inputs.
    """

    feature_dims_: dict[str, int]

    def empty_moments(self) -> FoldMoments:
        """Fold moments of the features of no rows, for :meth:`feature_moments` to add to."""
        return FoldMoments(Moments(self.feature_dims_, self.precision) for _ in range(self.folds))

    def feature_moments(
        self, views: Views, groups: Iterable[object] | None = None, into: FoldMoments | None = None
    ) -> FoldMoments:
        """Fold moments of the features of some rows, gathered in blocks.

        Args:
            views: ``{name: (n, d)}``; all-NaN rows are missing.
            groups: n values; rows with equal ones share a fold. Row numbers by default.
            into: What they are added to; by default what :meth:`empty_moments` makes.

        Raises:
            ValueError: On groups that do not fit, and partly NaN or infinite rows.
        """
        arrays = check_views(views)
        self._check_widths(arrays)
        check_rows(arrays)
        rows, folds = common_rows(arrays), self.empty_moments() if into is None else into
        fold = fold_of(range(rows) if groups is None else groups, len(folds))
        if len(fold) != rows:
            raise ValueError(f"{len(fold)} groups for {rows} rows")
        for number, part in enumerate(folds):
            mine = np.flatnonzero(fold == number)
            for start in range(0, len(mine), BLOCK_ROWS):
                index = mine[start : start + BLOCK_ROWS]
                part.add_checked({name: self._masked(name, values, index) for name, values in arrays.items()})
        return folds

    def fit_moments(self, folds: FoldMoments) -> Self:  # type: ignore[override]
        """Fits on fold moments of the features.

        Raises:
            ValueError: Before the features are there; see also :meth:`LinearAlignment.fit_moments`.
        """
        if not hasattr(self, "feature_dims_"):
            raise ValueError(f"{self.method} is fitted from views: its moments are those of features it makes first")
        super().fit_moments(folds)
        self.projection_.precompute_missing_maps()
        return self

    def _input_widths(self, _total: Moments) -> dict[str, int]:
        return self.n_features_in_

    def _check_widths(self, views: Views) -> None:
        for name, values in views.items():
            if values.shape[1] != self.n_features_in_.get(name):
                expected = self.n_features_in_.get(name, f"no such input but {', '.join(self.n_features_in_)}")
                raise ValueError(f"{name}: expected {expected} columns, got {values.shape[1]}")

    def _masked(self, name: str, values: FloatArray, index: NDArray[np.int64]) -> FloatArray:
        """(len(index), width) the features of these rows of an input; NaN where the input is missing."""
        block = as_matrix(name, values[index])
        there = present_rows(name, block, index)
        if there.all():
            return self._features(name, block)
        features = np.full((len(block), self.feature_dims_[name]), np.nan, block.dtype)
        features[there] = self._features(name, block[there])
        return features
