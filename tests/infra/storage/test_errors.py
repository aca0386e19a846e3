"""Retries of storage on a simulated clock."""

import pytest

from barycenter.infra.clock import current_clock, use_clock
from barycenter.infra.storage.errors import RETRY_SECONDS, retrying
from tests.infra.simulation import SimulatedClock


def test_transient_faults_are_retried_for_a_minute_with_growing_waits():
    tries = []

    def cut():
        tries.append(current_clock().monotonic())
        raise ConnectionResetError("the wire")

    with use_clock(SimulatedClock(seed=3)), pytest.raises(ConnectionResetError):
        retrying(cut)
    assert RETRY_SECONDS <= tries[-1] < RETRY_SECONDS + 5
    assert tries[1] <= 0.1
    assert 15 < len(tries) < 60


def test_the_same_seed_gives_the_same_waits():
    def tries_of(seed):
        clock, tries = SimulatedClock(seed), []

        def cut():
            tries.append(clock.now)
            if len(tries) < 9:
                raise TimeoutError

        with use_clock(clock):
            retrying(cut)
        return tries

    assert tries_of(1) == tries_of(1) != tries_of(2)


def test_the_clock_is_the_systems_again_after_the_block():
    before = current_clock()
    with use_clock(SimulatedClock()):
        assert current_clock() is not before
    assert current_clock() is before
