"""Arrow types and values for fuzzed tables: each type with a strategy of its Python values, the odd ones often."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

ODD_TEXTS = [
    "", " ", "a", "A", "é", "e\u0301", "007", "7", "0x1F", "1.50", "1e3", "nan", "null", "true", "2024-01-01",
    "10:30:00", "a/b", "a=b", "%41", "..", "a b", "tab\t", "__HIVE_DEFAULT_PARTITION__", "日本語" * 5, "😀", "\u2028",
    "x" * 300,
]  # fmt: skip
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FLOATS = st.sampled_from([0.0, -0.0, 1.0, 1.5, float("nan"), float("inf"), float("-inf")])
DAYS = st.dates(dt.date(1, 1, 2), dt.date(9999, 12, 30))


def ints(bits, signed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.sampled_from([low, high, 0, 1, 7]) | st.integers(low, high)


def decimals(precision, scale):
    whole = st.integers(-(10**precision) + 1, 10**precision - 1)
    return whole.map(lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -scale)))  # scaleb would round


def moments(unit):
    size = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return st.sampled_from([0, 1, -1, size * 86_400 * 365]) | st.integers(-(2**30), 2**30).map(lambda n: n * size // 7)


def lists(values, **size):
    return st.lists(st.none() | values, **({"max_size": 3} | size))


def _kinds():
    kinds = {str(kind): (kind, ints(kind.bit_width, kind in SIGNED)) for kind in (*SIGNED, *UNSIGNED)}
    kinds |= {
        "null": (pa.null(), st.none()),
        "bool": (pa.bool_(), st.booleans()),
        "float16": (pa.float16(), FLOATS.map(np.float16)),
        "float32": (pa.float32(), FLOATS | st.floats(width=32)),
        "float64": (pa.float64(), FLOATS | st.floats()),
        "string": (pa.string(), TEXTS),
        "large_string": (pa.large_string(), TEXTS),
        "dictionary": (pa.dictionary(pa.int8(), pa.string()), TEXTS),
        "binary": (pa.binary(), st.binary(max_size=4)),
        "large_binary": (pa.large_binary(), st.binary(max_size=4)),
        "fixed_binary": (pa.binary(3), st.binary(min_size=3, max_size=3)),
        "date32": (pa.date32(), DAYS),
        "date64": (pa.date64(), DAYS),
        "time32[s]": (pa.time32("s"), st.integers(0, 86_399)),
        "time32[ms]": (pa.time32("ms"), st.integers(0, 86_399_999)),
        "time64[us]": (pa.time64("us"), st.integers(0, 86_399_999_999)),
        "decimal32": (pa.decimal32(7, 2), decimals(7, 2)),
        "decimal64": (pa.decimal64(15, 4), decimals(15, 4)),
        "decimal128": (pa.decimal128(38, 9), decimals(38, 9)),
        "decimal256": (pa.decimal256(60, 9), decimals(60, 9)),
        "list<string>": (pa.list_(pa.string()), lists(TEXTS)),
        "list<list<int64>>": (pa.list_(pa.list_(pa.int64())), lists(lists(ints(64, True)))),
        "list<struct>": (pa.list_(pa.struct([("a", pa.int64()), ("b", pa.string())])), lists(
            st.fixed_dictionaries({"a": st.none() | ints(64, True), "b": st.none() | TEXTS}))),
        "large_list": (pa.large_list(pa.int32()), lists(ints(32, True))),
        "fixed_list<float32>": (pa.list_(pa.float32(), 2), lists(FLOATS, min_size=2, max_size=2)),
        "fixed_list<string>": (pa.list_(pa.string(), 2), lists(TEXTS, min_size=2, max_size=2)),
        "struct": (pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]), st.fixed_dictionaries(
            {"a": st.none() | ints(64, True), "b": st.none() | lists(TEXTS)})),
        "map": (pa.map_(pa.string(), pa.int32()), st.dictionaries(TEXTS, ints(32, True), max_size=2).map(
            lambda d: list(d.items()))),
    }  # fmt: skip
    for unit in ("s", "ms", "us", "ns"):
        kinds[f"timestamp[{unit}]"] = (pa.timestamp(unit), moments(unit))
        kinds[f"timestamp[{unit}, tz]"] = (pa.timestamp(unit, "Europe/Berlin"), moments(unit))
        kinds[f"duration[{unit}]"] = (pa.duration(unit), moments(unit))
    return kinds


SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy]] = _kinds()


SPECIAL = {
    "nan": ("float64", [float("nan"), 1.5, None]),
    "infinite": ("float64", [float("inf"), float("-inf"), 0.0]),
    "folded": ("string", ["US", "us", "Us"]),
    "normal forms": ("string", ["é", "e\u0301", None]),
    "escaped": ("string", ["a/b", "a=b", "%41", "\\", "?*"]),
    "empty text": ("string", ["", "a", None]),
    "nested": ("list<struct>", [[{"a": 1, "b": None}], [], None]),
}


@st.composite
def special(draw, rows):
    """A kind and a column of values that have been wrong before."""
    kind, values = draw(st.sampled_from(list(SPECIAL.values())))
    first = draw(st.integers(0, 4))
    return kind, pa.array([values[(first + row) % len(values)] for row in range(rows)], KINDS[kind][0])


@st.composite
def columns(draw, name, rows):
    """A column of a kind of :data:`KINDS`, with nulls, repeats and odd values."""
    kind, values = KINDS[name]
    few = draw(st.lists(values, min_size=1, max_size=rows))
    chosen = draw(st.lists(st.none() | st.sampled_from(few), min_size=rows, max_size=rows))
    if draw(st.booleans()):
        chosen = [few[0] if value is None else value for value in chosen]
    return pa.array(chosen, kind)


@st.composite
def invalid_text(draw, rows):
    """A string column of which some values are no UTF-8, and which those are."""
    values = draw(st.lists(st.sampled_from([b"a", b"\xff", b"ok\xc3", b"\xed\xa0\x80"]), min_size=rows, max_size=rows))
    array = pa.array(values, pa.binary())
    bad = [row for row, value in enumerate(values) if value != b"a"]
    return pa.Array.from_buffers(pa.string(), rows, array.buffers()), bad
