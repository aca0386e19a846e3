"""The commit protocol, interleaved in every way: here a beginning of it, and what a fault in it looks like."""

import pytest

from tests.simulation.exhaustive import Scope, explore_all
from tests.simulation.planted import planted


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_one_committer_and_a_reader_hold_in_every_order(kind):
    found = explore_all(kind, Scope(committers=1, readers=1, deaths=1))
    assert (found.failure, found.whole) == (None, True)
    assert found.states > 100


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_two_committers_that_give_each_other_up_hold(kind):
    found = explore_all(kind, Scope(committers=2, readers=0, deaths=0), most=600)
    assert found.failure is None
    assert found.states > 1000


def test_a_pointer_that_comes_too_early_is_found():
    with planted("the pointer before the manifest"):
        found = explore_all("local", Scope(committers=1, readers=1, before=0))
    assert "which is not committed" in str(found.failure)
