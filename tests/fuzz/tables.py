"""Strategies of fuzzed corpora: a column of a kind in a role, with other columns beside it."""

import json
import math
from random import Random
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from tests.fuzz.case import Case, Column
from tests.fuzz.loose import CSV_KINDS, HEADS, LATE, has_surrogate, text_of
from tests.fuzz.values import KINDS, SPECIAL, TEXTS, TWO_TYPES, chosen, texts_not_utf8

ROLES = ("key", "kept", "partition", "target")
CHANGES = [f"{first} > {second}" for first, second in TWO_TYPES]
FAMILIES = {"parquet": list(KINDS), "files": CHANGES, "json": list(HEADS), "csv": list(CSV_KINDS)}
"""Families of corpora and the kinds of columns in them."""

FORMS = {
    "parquet": ["parquet"],
    "files": ["parquet"],
    "json": ["jsonl", "jsonl.gz", "jsonl.zst"],
    "csv": ["csv", "tsv", "csv.gz", "tsv.zst"],
}
NAMES = [
    "y é", "a/b", "a=b", "a.b", "a`b", 'a"b', "A", "C", "P", "vector", "key", "fused", "has_vec", "count_txt", "index",
    "aligned_vec", "__keys__", "__bad__", "__misfits__", "_x", ".x", "%41", "日本", "ok", "split", "x" * 300, "?*[x]",
    "__index_level_0__", "__fragment_index", "train", "label",
]  # fmt: skip
"""Names of further columns; some are the output's own, some differ from others by case."""

_WORDS = TEXTS | st.sampled_from(["a red fox", "two words", "red fox a"])
WIDTH = 8
"""Numbers in a vector."""

_VECTORS = [None, [], [1.0], *([*some, *[0.5] * (WIDTH - 2)] for some in (
    [math.nan, 1.0], [math.inf, 1.0], [None, 1.0], [1.0, 2.0], [0.5, -2.0], [3.0, 4.0]))]  # fmt: skip


@st.composite
def cases(draw: Any, role: str, family: str, kind: str) -> Case:
    """A corpus in which a column of a kind has a role."""
    pick = Random(f"{draw(st.integers(0, 2**32 - 1))} {role} {kind}")
    rows = pick.randint(2, 8) if family == "files" else pick.randint(1, 9)
    cut = pick.randint(1, rows - 1) if family == "files" or (rows > 1 and pick.random() < 0.2) else rows
    cuts = [part for part in (cut, rows - cut) if part]
    kinds = _kinds(role, family, kind, pick)
    inputs = ["txt"] if family == "csv" else pick.choice([["vec"], ["vec"], ["txt"], ["vec", "other"], ["txt", "vec"]])
    case = Case(
        family, pick.choice(FORMS[family]), cuts, {}, list(kinds), inputs,
        "k" if role == "key" or pick.random() < 0.75 else None,
        ["p"] if role == "partition" or pick.random() < 0.4 else [],
        "c" if role == "target" else None,
        sample=pick.choice([2, 3, 10_000]),
        turn=pick.randrange(1000),
    )  # fmt: skip
    for name, of in kinds.items():
        case.columns[name] = _column(draw, case, of, pick)
    if role != "partition":
        _put_special(case, pick)
    for name in inputs:
        case.columns[name] = _input(draw, case, name, pick)
    if family in ("json", "csv") and rows > 1:
        case.broken = {row for row in range(1, rows) if pick.random() < 0.05}
    return case


def _kinds(role: str, family: str, kind: str, pick: Random) -> dict[str, str]:
    simple = {"json": "json text", "csv": "csv text"}.get(family, "string")
    kinds = {"k": simple, "p": simple, "c": simple}
    some = FAMILIES[family] if pick.random() < 0.5 or family != "files" else FAMILIES["parquet"]
    others = [pick.choice(["x", *NAMES]) if pick.random() < 0.15 else name for name in ["x", "z"]]
    kinds |= {name: pick.choice(some) for name in others[: pick.choice([0, 1, 1, 2])]}
    if family != "csv" and pick.random() < 0.1:
        kinds["u"] = "json text" if family == "json" else "invalid"
    kinds[{"key": "k", "partition": "p"}.get(role, "c")] = kind
    return kinds


def _column(draw: Any, case: Case, kind: str, pick: Random) -> Column:
    if kind == "invalid":
        return _not_utf8(case, pick)
    if kind in KINDS:
        of, values = KINDS[kind]
        some = draw(st.lists(values, min_size=1, max_size=3))
        return _of_arrays(kind, _cut(pa.array(chosen(some, case.rows, pick), of), case.cuts))
    if kind in CHANGES:
        return _changing(draw, case, kind, pick)
    return _loose(draw, case, kind, pick)


def _of_arrays(kind: str, arrays: list[pa.Array], may: set[int] | None = None) -> Column:
    return Column(kind, [value for array in arrays for value in array.to_pylist()], arrays, may or set())


def _cut(array: pa.Array, cuts: list[int]) -> list[pa.Array]:
    return [array.slice(sum(cuts[:number]), rows) for number, rows in enumerate(cuts)]


def _changing(draw: Any, case: Case, kind: str, pick: Random) -> Column:
    """A column that has another type in each of two files."""
    arrays = []
    for name, rows in zip(kind.split(" > "), case.cuts, strict=True):
        of, values = KINDS[name]
        arrays.append(pa.array(chosen(draw(st.lists(values, min_size=1, max_size=2)), rows, pick), of))
    return _of_arrays(kind, arrays, set(range(case.rows)))


def _loose(draw: Any, case: Case, kind: str, pick: Random) -> Column:
    """A column of text files, in JSON with later values of another type."""
    if kind in CSV_KINDS:
        return Column(kind, chosen(draw(st.lists(CSV_KINDS[kind], min_size=1, max_size=3)), case.rows, pick))
    values = chosen(draw(st.lists(HEADS[kind], min_size=1, max_size=3)), case.rows, pick)
    if pick.random() < 0.6 and case.rows > case.sample:
        later = draw(st.lists(LATE, min_size=1, max_size=2))
        for row in range(case.sample, case.rows):
            values[row] = pick.choice([values[row], *later])
    seen = _seen(case)
    surrogates = {row for row, value in enumerate(values) if has_surrogate(json.dumps(value, ensure_ascii=False))}
    return Column(kind, values, may_not_fit={row for row in range(case.rows) if row not in seen} | surrogates)


def _seen(case: Case) -> set[int]:
    """The rows whose values the type of a column is made from."""
    starts = [sum(case.cuts[:number]) for number in range(len(case.cuts))]
    return {
        row
        for start, rows in zip(starts, case.cuts, strict=True)
        for row in range(start, start + min(rows, case.sample))
    }


def _not_utf8(case: Case, pick: Random) -> Column:
    array, values = texts_not_utf8(case.rows, pick)
    bad = {row for row, value in enumerate(values) if value != b"a"}
    return Column(
        "string", [value if row in bad else "a" for row, value in enumerate(values)], _cut(array, case.cuts), bad
    )


def _put_special(case: Case, pick: Random) -> None:
    """Values that were wrong before, in place of those of a column."""
    kind, values = pick.choice(list(SPECIAL.values()))
    first = pick.randint(0, 4)
    some = [values[(first + row) % len(values)] for row in range(case.rows)]
    if case.family in ("json", "csv"):
        if kind == "string":
            case.columns["p"] = Column(f"{case.family} text", some)
        return
    place = "p" if kind == "string" else "x"
    case.columns[place] = _of_arrays(kind, _cut(pa.array(some, KINDS[kind][0]), case.cuts))
    case.kept = list(dict.fromkeys([*case.kept, place]))


def _input(draw: Any, case: Case, name: str, pick: Random) -> Column:
    rows = case.rows
    if name != "txt":
        values = [_VECTORS[-1], *(pick.choice(_VECTORS) for _ in range(rows - 1))]
        if case.family == "json" and case.sample < rows and pick.random() < 0.3:
            values[pick.randint(case.sample, rows - 1)] = pick.choice(["text", {"a": 1}, 5, True])
        arrays = [] if case.family == "json" else _cut(pa.array(values, pa.list_(pa.float32())), case.cuts)
        return Column("vector", values, arrays, set(range(rows)))
    if case.family in ("parquet", "files") and pick.random() < 0.1:
        return _not_utf8(case, pick)
    words = (
        ["red fox", *chosen(draw(st.lists(_WORDS, min_size=1, max_size=3)), rows - 1, pick)] if rows > 1 else ["fox"]
    )
    if case.family == "json" and case.sample < rows and pick.random() < 0.3:
        words[pick.randint(case.sample, rows - 1)] = pick.choice([7, {"a": "b"}, ["l"], "\ud800", 1.5, True])
    arrays = []
    if case.family in ("parquet", "files"):
        of = pick.choice([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
        arrays = _cut(pa.array(words, of), case.cuts)
    return Column("text", words, arrays, set(range(rows)))


def usable(case: Case, name: str, row: int) -> bool:
    """Whether a row's value of an input can be embedded."""
    value = case.value(name, row)
    if name == "txt":
        text = None if isinstance(value, bytes) else text_of(value)
        return bool(text and text.strip() and not has_surrogate(text))
    if not isinstance(value, list) or len(value) != WIDTH:
        return False
    return all(isinstance(part, float) and math.isfinite(part) for part in value)
