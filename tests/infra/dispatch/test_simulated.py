"""The scheduler without Ray and without waiting: retries, deaths, hung workers, poisoned rows, on a simulated clock."""

import random

import pytest

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.dispatch.api import Work, dispatch, run_all
from tests.infra.dispatch.poisoned import Poisoned, without_rows
from tests.infra.simulation import Crash, Hang, SimulatedExecutor


class Scripted:
    """Does to each unit what ``deeds`` says for it, once for every entry; then succeeds."""

    def __init__(self, deeds):
        self.deeds = deeds

    def run(self, payload):
        if self.deeds.get(payload):
            raise self.deeds[payload].pop(0)
        return payload


def units(count, rows=1):
    return [Work(str(number), number, rows) for number in range(count)]


def run(clock, make, work, workers=2, **options):
    executor, done = SimulatedExecutor(make, workers, clock), []
    quarantined = dispatch(work, executor, on_done=lambda _, value: done.append(value), **options)
    assert sorted(executor.started) == sorted(set(executor.killed)), "every worker is ended"
    return done, quarantined, executor


def test_units_are_spread_over_the_workers_in_the_least_time(clock):
    done, quarantined, executor = run(clock, lambda: Scripted({}), units(100), workers=4)
    assert sorted(done) == list(range(100))
    assert (quarantined, len(executor.started)) == ([], 4)
    assert clock.now == pytest.approx(5 + 25)


@pytest.mark.parametrize("deed", [Crash(), ValueError("no"), ConnectionResetError("the wire")])
def test_what_fails_in_passing_is_tried_again(clock, deed):
    deeds = {3: [deed], 7: [deed, deed]}
    done, quarantined, _ = run(clock, lambda: Scripted(deeds), units(20))
    assert (sorted(done), quarantined) == (list(range(20)), [])


def test_a_hung_worker_is_replaced_when_its_time_is_up(clock):
    deeds = {0: [Hang()]}
    done, quarantined, executor = run(clock, lambda: Scripted(deeds), units(2), workers=1)
    assert (sorted(done), quarantined, len(executor.started)) == ([0, 1], [], 2)
    assert 300 <= clock.now < 400


def test_attempts_run_out_and_the_unit_is_quarantined_whole(clock):
    deeds = {1: [ValueError("never")] * 9}
    done, quarantined, _ = run(clock, lambda: Scripted(deeds), units(3))
    assert sorted(done) == [0, 2]
    assert [(each.id, each.attempts, each.detail) for each in quarantined] == [("1", 3, "ValueError: never")]
    executor = SimulatedExecutor(lambda: Scripted(deeds), 2, clock)
    with pytest.raises(RunError, match=r"^block 1 failed 3 times: ValueError: never; run again$"):
        run_all(units(3), executor, what="block", on_done=lambda *_: None)


@pytest.mark.parametrize("deed", [Crash(), ValueError("a row")])
def test_poisoned_rows_are_found_and_the_rest_is_done(clock, deed):
    def raising():
        raise deed

    work = [Work("good", (4, ()), 4), Work("bad", (64, ()), 64)]
    done, quarantined, _ = run(clock, lambda: Poisoned({5, 17, 63}, raising), work, without_rows=without_rows)
    assert sorted(done) == [4, 61]
    assert [(each.id, each.rows) for each in quarantined] == [("bad", (5, 17, 63))]


def test_workers_that_keep_dying_end_the_run(clock):
    with pytest.raises(RunError, match="workers died 9 times in a row without finishing anything; last: its process"):
        run(clock, lambda: Scripted({number: [Crash()] * 9 for number in range(9)}), units(9), workers=1)


def test_no_worker_that_starts_ends_the_run_after_half_an_hour(clock):
    executor = SimulatedExecutor(lambda: Scripted({}), 1, clock, load_seconds=1e9)
    with pytest.raises(RunError, match=r"no worker started within 180\d s: there are none"):
        dispatch(units(1), executor, on_done=lambda *_: None)
    executor.gone = True
    with pytest.raises(RunError, match="the simulation is gone"):
        dispatch(units(1), executor, on_done=lambda *_: None)


def test_a_wrong_job_ends_the_run_at_once(clock):
    with pytest.raises(JobError, match=r"^inputs\.image\.column: no$"):
        run(clock, lambda: Scripted({0: [JobError("inputs.image.column", "no")]}), units(5))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_fails_in_passing_every_unit_is_done_once(clock, seed):
    draw = random.Random(seed)
    deeds = {
        number: [draw.choice([Crash(), Hang(), ValueError("no"), OSError(5, "disk")]) for _ in range(draw.randrange(3))]
        for number in range(40)
        if draw.random() < 0.3
    }
    done, quarantined, _ = run(clock, lambda: Scripted(deeds), units(40), workers=draw.randrange(1, 5))
    assert (sorted(done), quarantined) == (list(range(40)), [])
