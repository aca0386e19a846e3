"""How well probabilities are calibrated."""

import numpy as np
from numpy.typing import NDArray


def expected_calibration_error(confidence: NDArray[np.floating], hits: NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over bins of equal width (Guo et al. 2017, eq. 5).

    Args:
        confidence: (n,) probability of the predicted class.
        hits: (n,) whether it was right.
        bins: Number of bins.
    """
    which = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    gap = np.bincount(which, np.asarray(confidence, dtype=np.float64) - hits, minlength=bins)
    return float(np.abs(gap).sum() / max(len(which), 1))
