"""Checks on raw row values that several encoders share."""

import math

from barycenter.fusion.errors import BadInputError, Reason


def is_null(value: object) -> bool:
    """Whether a table's value means "missing": None or a scalar NaN.

    >>> is_null(None), is_null(float("nan")), is_null(""), is_null(0.0)
    (True, True, False, False)
    """
    return value is None or (isinstance(value, float) and math.isnan(value))


def check_text(value: object) -> str:
    """The value as text that every tokenizer can read.

    Raises:
        BadInputError: NULL, NOT_TEXT, EMPTY (or only white space) or INVALID_TEXT (lone surrogates).

    >>> check_text("a crab")
    'a crab'
    """
    if is_null(value):
        raise BadInputError(Reason.NULL)
    if not isinstance(value, str):
        raise BadInputError(Reason.NOT_TEXT, f"{type(value).__name__} {str(value)[:80]!r}")
    if not value or value.isspace():
        raise BadInputError(Reason.EMPTY)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInputError(Reason.INVALID_TEXT, f"lone surrogate at character {error.start}") from None
    return value
