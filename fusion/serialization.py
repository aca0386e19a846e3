"""JSON of fitted estimators: parameters may be NumPy's numbers."""

import json
from typing import Any

import numpy as np


def dumps(value: Any) -> str:
    """Indented JSON; NumPy's scalars and arrays become plain numbers and lists.

    >>> dumps([np.int64(2), np.float32(0.5), np.bool_(True)]).split()
    ['[', '2,', '0.5,', 'true', ']']
    """
    return json.dumps(value, indent=1, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")
