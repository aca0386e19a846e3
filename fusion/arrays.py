"""Types of arrays, and how many rows are worked on at a time."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
FloatArray = NDArray[np.floating]

BLOCK_ROWS = 8192
