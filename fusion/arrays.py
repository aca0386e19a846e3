"""Types of arrays."""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
FloatArray = NDArray[np.floating]
