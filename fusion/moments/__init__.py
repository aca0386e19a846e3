"""First and second moments of paired inputs, by cross-validation fold: all that a linear alignment is fitted on."""

from barycenter.fusion.moments.folds import FoldMoments
from barycenter.fusion.moments.paired import Moments, Precision, merge_all

__all__ = ["FoldMoments", "Moments", "Precision", "merge_all"]
