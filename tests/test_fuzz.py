"""Fuzzed tables from corpus to readers: some always, ten thousand marked slow, or as many as BARYCENTER_FUZZ says."""

import os

import pytest

from tests.fuzz import INVALID, ROLES, SPECIALS, fuzz, pairs
from tests.fuzz_values import KINDS


def check_floors(tally, tables):
    print("\n".join(tally.lines()))
    assert sum(tally.roles.values()) >= tables
    assert tally.ends["written"] >= tables / 4
    tried = pairs(tables)
    assert {kind for _, kind in tried} == set(KINDS)
    assert {role for role, _ in tried} == set(ROLES)
    assert min(tally.roles[pair] for pair in tried) >= tables // len(tried)
    gone = set() if INVALID else {"invalid utf-8"}
    assert not [special for special in SPECIALS if tally.specials[special] < tables / 200 and special not in gone]


def test_some_fuzzed_tables():
    check_floors(fuzz(200), 200)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_fuzzed_tables():
    tables = int(os.environ.get("BARYCENTER_FUZZ", "10000"))
    check_floors(fuzz(tables, seed_value=1), tables)
