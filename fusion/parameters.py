"""Checks on single parameters: each names the one that is wrong."""

import math
from numbers import Integral, Real
from typing import Any


def check_whole(name: str, value: Any, optional: bool = False, least: int = 1) -> None:
    """Refuses a parameter that is no whole number from ``least``.

    Raises:
        ValueError: Naming it.
    """
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, not {value!r}")


def is_number(value: Any) -> bool:
    """Whether a parameter is one finite real number.

    >>> is_number(1), is_number(float("nan")), is_number("1"), is_number(True)
    (True, False, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def check_number(name: str, value: Any, above_zero: bool = False) -> None:
    """Refuses a parameter that is no finite number, at least 0 (or above it).

    Raises:
        ValueError: Naming it.
    """
    if not is_number(value) or value < 0 or (above_zero and value == 0):
        raise ValueError(f"{name} must be a finite number {'above' if above_zero else 'of at least'} 0, not {value!r}")
