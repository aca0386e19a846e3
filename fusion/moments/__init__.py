"""First and second moments of paired inputs, by cross-validation fold: all that a linear alignment is fitted on."""

from barycenter.fusion.moments.folds import BLOCK_ROWS, FoldMoments, Moments, Precision, merge_all

__all__ = ["BLOCK_ROWS", "FoldMoments", "Moments", "Precision", "merge_all"]
