"""Fuzzed tables from corpus to readers: some always, ten thousand marked slow, or as many as BARYCENTER_FUZZ says."""

import os

import pytest

from tests.fuzz.run import fuzz, pairs
from tests.fuzz.tables import FAMILIES, ROLES
from tests.fuzz.tally import READERS, SPECIALS


def check_floors(tally, tables):
    print("\n".join(tally.lines()))
    assert tally.tables >= tables
    assert not tally.below()


def test_few_tables_try_every_kind_and_every_role():
    tried = pairs(1)
    assert {(family, kind) for _, family, kind in tried} == {
        (f, kind) for f, kinds in FAMILIES.items() for kind in kinds
    }
    assert {role for role, _, _ in tried} == set(ROLES)
    assert len(pairs(10_000)) == len(ROLES) * len(tried)


def test_some_fuzzed_tables():
    tally = fuzz(300)
    check_floors(tally, 300)
    assert set(tally.specials) == set(SPECIALS)
    assert set(tally.readers) == set(READERS)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_fuzzed_tables():
    tables = int(os.environ.get("BARYCENTER_FUZZ", "10000"))
    check_floors(fuzz(tables, seed_value=1, workers=os.cpu_count() or 1), tables)
