"""Fuzzed tables from corpus to readers: some always, ten thousand marked slow, or as many as BARYCENTER_FUZZ says."""

import os

import pytest

from tests.fuzz import INVALID, ROLES, SPECIALS, fuzz
from tests.fuzz_values import KINDS


def check_floors(tally, tables):
    print("\n".join(tally.lines()))
    assert sum(tally.roles.values()) >= tables
    assert tally.ends["written"] >= tables / 4
    least = tables // (8 * len(ROLES) * len(KINDS))
    assert not [(role, kind) for role in ROLES for kind in KINDS if tally.roles[role, kind] < least]
    assert all(sum(tally.roles[role, kind] for kind in KINDS) >= tables / 10 for role in ROLES)
    gone = {"invalid utf-8"} - ({"invalid utf-8"} if INVALID else set())
    assert not [special for special in SPECIALS if tally.specials[special] < tables / 200 and special not in gone]


def test_some_fuzzed_tables():
    check_floors(fuzz(200), 200)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_fuzzed_tables():
    tables = int(os.environ.get("BARYCENTER_FUZZ", "10000"))
    check_floors(fuzz(tables, seed_value=1), tables)
