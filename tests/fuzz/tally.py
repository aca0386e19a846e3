"""What was tried, by kind and by special value, and how it ended; with the least that there must be of each."""

import math
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from tests.fuzz.case import Case
from tests.fuzz.tables import FAMILIES, FORMS, ROLES

SPECIALS = {
    "nan": 0.02, "infinite": 0.02, "null": 0.3, "empty text": 0.03, "escaped": 0.03, "folded": 0.02,
    "invalid utf-8": 0.02, "nested": 0.05, "late value in json": 0.02, "other type in a second file": 0.05,
    "value that does not fit": 0.02, "broken row": 0.005, "odd name": 0.05, "text input": 0.1, "vector input": 0.2,
    "two inputs": 0.05, "missing input": 0.02, "two files": 0.05, "no key": 0.05, "repeated key": 0.05,
    "long text": 0.005,
}  # fmt: skip
"""Special tables, and the least share of the tables that each must have."""

READERS = {"FusedDataset": 0.3, "pandas": 0.3, "pyarrow": 0.3, "polars": 0.1, "duckdb": 0.1, "datasets": 0.01}
"""Readers, and the least share of the tables that each must have read."""


@dataclass
class Tally:
    """Counts of tables."""

    roles: Counter = field(default_factory=Counter)
    forms: Counter = field(default_factory=Counter)
    specials: Counter = field(default_factory=Counter)
    readers: Counter = field(default_factory=Counter)
    ends: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    rows: Counter = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Adds another's counts."""
        for name, counts in vars(other).items():
            getattr(self, name).update(counts)

    @property
    def tables(self) -> int:
        """How many tables were tried."""
        return sum(self.roles.values())

    def floors(self) -> list[tuple[str, int, int]]:
        """(what, tables, the least there must be) of all that has a floor."""
        pairs = self._pairs()
        each = self.tables // (2 * max(1, len(pairs)))
        floors = [(f"{role:<10}{kind}", self.roles[role, kind], max(1, each)) for role, kind in pairs]
        forms = [form for family in FAMILIES for form in FORMS[family]]
        floors += [(f"form      {form}", self.forms[form], self.tables // 250) for form in dict.fromkeys(forms)]
        for name, counts in (("special", SPECIALS), ("reader", READERS)):
            found = self.specials if name == "special" else self.readers
            floors += [(f"{name:<10}{kind}", found[kind], int(share * self.tables)) for kind, share in counts.items()]
        return [*floors, ("end       written", self.ends["written"], self.tables // 3)]

    def _pairs(self) -> list[tuple[str, str]]:
        if len(self.roles) < len(ROLES) * sum(map(len, FAMILIES.values())):
            return list(self.roles)
        return [(role, kind) for role in ROLES for kinds in FAMILIES.values() for kind in kinds]

    def below(self) -> list[tuple[str, int, int]]:
        """What there was too little of."""
        return [each for each in self.floors() if each[1] < each[2]]

    def lines(self) -> list[str]:
        """A table for people."""
        lines = [f"{what:<50} {count:>7} tables, at least {least}" for what, count, least in self.floors()]
        lines += [f"end       {end:<40} {count:>7} tables" for end, count in sorted(self.ends.items())]
        lines += [f"refused   {count:>7} {name}: {text}" for (name, text), count in self.refused.most_common(40)]
        return lines + [f"rows      {name:<40} {count:>7}" for name, count in sorted(self.rows.items())]


def specials_of(case: Case) -> set[str]:
    """Which special values a case holds, before it is run."""
    found = {"text input" if name == "txt" else "vector input" for name in case.inputs}
    found |= {"two inputs"} if len(case.inputs) > 1 else set()
    found |= {"two files"} if len(case.cuts) > 1 else set()
    found |= {"broken row"} if case.broken else set()
    found |= {"no key"} if case.key is None else set()
    found |= {"other type in a second file"} if any(" > " in column.kind for column in case.columns.values()) else set()
    for name in case.kept:
        found |= _specials_of(case, name)
    return found


def _specials_of(case: Case, name: str) -> set[str]:
    column = case.columns[name]
    values = column.values
    texts = {value for value in values if isinstance(value, str)}
    floats = [value for value in values if isinstance(value, float)]
    late = [type(value) for row, value in enumerate(values) if row >= case.sample and value is not None]
    first = {type(value) for value in values[: case.sample] if value is not None}
    kind = column.type
    tests = {
        "null": None in values,
        "nan": any(map(math.isnan, floats)),
        "infinite": any(map(math.isinf, floats)),
        "empty text": "" in texts,
        "escaped": name in case.partition and any(not text.isalnum() for text in texts),
        "folded": len({text.casefold() for text in texts}) < len(texts),
        "nested": pa.types.is_nested(kind) if kind is not None else any(isinstance(v, dict | list) for v in values),
        "invalid utf-8": kind == pa.string() and any(isinstance(value, bytes) for value in values),
        "late value in json": case.family == "json" and not first.issuperset(late),
        "odd name": name not in "kpcxzu",
        "long text": any(len(text) > 200 for text in texts),
    }
    return {special for special, is_there in tests.items() if is_there}
