"""Values of JSON Lines and CSV: what a column begins with, and what comes later."""

import json
import math
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.values import ODD_TEXTS, TEXTS

_WHOLE = st.sampled_from([0, 7, -1, 2**53 + 1, 2**63 - 1, -(2**63)]) | st.integers(-(2**62), 2**62)
_REAL = st.sampled_from([0.5, 1.0, -0.0, 1e300, math.nan, math.inf]) | st.floats(width=32)
_OBJECT = st.fixed_dictionaries({"a": _WHOLE | TEXTS, "b é": st.none() | st.lists(_REAL, max_size=1)})

HEADS: dict[str, st.SearchStrategy] = {
    "json text": TEXTS,
    "json whole": _WHOLE,
    "json real": _REAL,
    "json bool": st.booleans(),
    "json object": _OBJECT,
    "json texts": st.lists(st.none() | TEXTS, max_size=2),
    "json numbers": st.lists(_REAL | _WHOLE, max_size=3),
    "json lists": st.lists(st.lists(_WHOLE, max_size=2), max_size=2),
    "json objects": st.lists(_OBJECT, max_size=2),
    "json null": st.none(),
}
"""Kinds of JSON values, one of which a column begins with."""

LATE = st.one_of(
    *HEADS.values(), st.sampled_from([2**64, 10**400, "\ud800", [1, "a"], [[[1]]], {}, "x" * 300, [2**64], True])
)
"""What may come in later rows."""

CSV_TEXTS = st.sampled_from([*ODD_TEXTS, "a,b", 'a "b"', "two\nlines", "cr\rlf\r\n", "\ufeff"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)

CSV_KINDS = {
    "csv text": CSV_TEXTS,
    "csv numbers": st.sampled_from(["7", "07", "1.50", "-0", "1e3", "NA", "", "12,5", "2147483648"]) | _WHOLE.map(str),
    "csv spaces": st.sampled_from(["", " ", " a", "a ", "\t", "\xa0", "\u3000", "'", '"']),
}
"""Kinds of CSV fields, all of them text."""


def text_of(value: Any) -> str | None:
    """A JSON value as text: strings as they are, others as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def key_of(value: Any) -> str | None:
    """The key that a JSON value is: whole numbers without a fraction; None where it is none."""
    if isinstance(value, float):
        value = None if math.isnan(value) else (int(value) if value.is_integer() else repr(value))
    text = text_of(value)
    return text if text and not has_surrogate(text) else None


def has_surrogate(text: str) -> bool:
    """Whether it holds half a surrogate pair, which UTF-8 has no bytes for."""
    return any("\ud800" <= sign <= "\udfff" for sign in text)


def matches(want: Any, found: Any, missing: bool = False) -> bool:
    """Whether a value is that of JSON: itself, or its JSON text where the column is text.

    Args:
        want: The JSON value.
        found: As a reader gives it.
        missing: The reader has NaN for null.
    """
    if want is None or found is None or (missing and isinstance(found, float) and math.isnan(found)):
        nothing = found is None or (isinstance(found, float) and math.isnan(found))
        return nothing and (want is None or (missing and isinstance(want, float) and math.isnan(want)))
    if hasattr(found, "tolist"):
        found = found.tolist()
    if isinstance(found, str) and not isinstance(want, str):
        return _equal(json.loads(found, parse_float=_real), want)
    if isinstance(want, list):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(want)
            and all(matches(a, b, missing) for a, b in zip(want, found, strict=True))
        )
    return _equal(found, want)


def _real(text: str) -> float:
    return float(text)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) and isinstance(b, float) and math.isnan(b):
        return math.isnan(a)
    if isinstance(a, float | int) and isinstance(b, float | int):
        return a == b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b
