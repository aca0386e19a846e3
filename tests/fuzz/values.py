"""Arrow types and values for fuzzed tables: each type with a strategy of its Python values, the odd ones often."""

import datetime as dt
import json
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
    far = [] if unit == "ns" else [-62_135_300_000 * size, 253_402_000_000 * size]
    return st.sampled_from([0, 1, -1, size * 86_400 * 365, *far]) | st.integers(-(2**30), 2**30).map(
        lambda n: n * size // 7
    )


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
    kinds |= {
        "string_view": (pa.string_view(), TEXTS),
        "binary_view": (pa.binary_view(), st.binary(max_size=4)),
        "dictionary<int64>": (pa.dictionary(pa.int32(), pa.int64()), ints(64, True)),
        "list_view": (pa.list_view(pa.string()), lists(TEXTS)),
        "time64[ns]": (pa.time64("ns"), st.integers(0, 86_399_999_999_999)),
        "uuid": (pa.uuid(), st.uuids().map(lambda value: value.bytes)),
        "json": (pa.json_(), TEXTS.map(json.dumps)),
        "struct<struct>": (pa.struct([("s", pa.struct([("t", pa.timestamp("us")), ("d", pa.decimal32(5, 1))]))]),
            st.fixed_dictionaries({"s": st.none() | st.fixed_dictionaries(
                {"t": st.none() | moments("us"), "d": st.none() | decimals(5, 1)})})),
        "map<struct>": (pa.map_(pa.int64(), pa.struct([("a", pa.list_(pa.float64()))])), st.dictionaries(
            ints(64, True), st.fixed_dictionaries({"a": st.none() | lists(FLOATS)}), max_size=2).map(
            lambda d: list(d.items()))),
        "list<date>": (pa.list_(pa.date32()), lists(DAYS)),
        "list<binary>": (pa.list_(pa.binary()), lists(st.binary(max_size=3))),
    }  # fmt: skip
    for unit in ("s", "ms", "us", "ns"):
        kinds[f"timestamp[{unit}]"] = (pa.timestamp(unit), moments(unit))
        kinds[f"timestamp[{unit}, offset]"] = (pa.timestamp(unit, "+05:30"), moments(unit))
        kinds[f"timestamp[{unit}, tz]"] = (pa.timestamp(unit, "Europe/Berlin"), moments(unit))
        kinds[f"duration[{unit}]"] = (pa.duration(unit), st.integers(-(2**40), 2**40))
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
    "splits": ("string", ["my test", "a-train", "0 val", "test"]),
    "empty text": ("string", ["", "a", None]),
    "nested": ("list<struct>", [[{"a": 1, "b": None}], [], None]),
}
"""Kinds and values that have been wrong before."""

TWO_TYPES = [
    ("int8", "int64"), ("int64", "uint64"), ("int64", "float64"), ("float64", "int64"), ("float32", "float64"),
    ("float16", "float64"), ("bool", "int8"), ("null", "string"), ("null", "list<struct>"), ("string", "large_string"),
    ("string", "dictionary"), ("string", "int64"), ("int64", "string"), ("string", "binary"), ("date32", "date64"),
    ("date32", "timestamp[ms]"), ("timestamp[s]", "timestamp[ns]"), ("timestamp[us]", "timestamp[us, tz]"),
    ("time32[s]", "time64[us]"), ("duration[s]", "duration[ns]"), ("decimal32", "decimal128"),
    ("decimal64", "float64"), ("int64", "decimal128"), ("list<string>", "string"), ("struct", "list<struct>"),
    ("large_list", "list<list<int64>>"), ("uuid", "string"), ("fixed_binary", "binary"),
]  # fmt: skip
"""Kinds of one column in two files."""


def chosen(values, rows, pick):
    """A value of some, or null, for each row."""
    found = [pick.choice([None, *values, *values]) for _ in range(rows)]
    return found if pick.random() < 0.5 else [values[0] if value is None else value for value in found]


def texts_not_utf8(rows, pick):
    """A string array of which some values are no UTF-8, and the bytes."""
    values = [pick.choice([b"a", b"\xff", b"ok\xc3", b"\xed\xa0\x80"]) for _ in range(rows)]
    return pa.Array.from_buffers(pa.string(), rows, pa.array(values, pa.binary()).buffers()), values


@st.composite
def columns(draw, name, rows):
    """A column of a kind, with nulls and repeats, every value of it drawn."""
    kind, values = KINDS[name]
    few = draw(st.lists(values, min_size=1, max_size=rows))
    return pa.array(draw(st.lists(st.none() | st.sampled_from(few), min_size=rows, max_size=rows)), kind)
