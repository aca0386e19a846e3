"""Workers shared out among dispatches that run side by side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barycenter.fusion.errors import RunError
from barycenter.infra.clock import use_clock
from barycenter.infra.dispatch.api import dispatch
from barycenter.infra.dispatch.scheduler import Scheduler
from barycenter.infra.dispatch.shares import Shares, StoppedError
from tests.infra.dispatch.test_simulated import Scripted, units
from tests.infra.simulation import NodeLost, OutOfMemory, SimulatedClock, SimulatedExecutor


def test_each_has_one_worker_until_its_pace_is_known(clock):
    shares = Shares(["text", "image"])
    text, image = shares.of("text"), shares.of("image")
    text.begin("cpu", 8, 8, 1000)
    clock.now = 500.0  # its first worker starts late: that is no pace
    text.note_running(1)
    assert text.workers() == 1
    clock.now = 510.0
    text.advance(100)
    assert text.workers() == 7, "one is kept for the input that has not begun"
    image.begin("cpu", 8, 8, 1000)
    image.note_running(1)
    assert (text.workers(), image.workers()) == (7, 1)
    text.note_running(0)
    clock.now = 540.0
    image.advance(100)
    assert (text.workers(), image.workers()) == (2, 6), "0.1 s a row and 900 left; 0.3 s and 900"
    text.end()
    assert image.workers() == 8


def test_none_has_more_than_it_can_use(clock):
    shares = Shares(["a", "b"])
    first, second = shares.of("a"), shares.of("b")
    first.begin("cpu", 6, 2, 10**6)
    second.begin("cpu", 6, 6, 10)
    first.note_running(1)
    second.note_running(1)
    clock.now = 1.0
    first.advance(1)
    second.advance(1)
    assert (first.workers(), second.workers()) == (2, 4)


def test_those_of_another_device_do_not_count(clock):
    shares = Shares(["a", "b"])
    gpu, cpu = shares.of("a"), shares.of("b")
    gpu.begin("cuda", 4, 4, 100)
    cpu.begin("cpu", 3, 3, 100)
    gpu.note_running(1)
    cpu.note_running(1)
    clock.now = 1.0
    gpu.advance(1)
    cpu.advance(1)
    assert (gpu.workers(), cpu.workers()) == (4, 3)


@given(
    members=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 10**6), st.floats(1e-4, 10.0)), min_size=1, max_size=5
    ),
    room=st.integers(5, 40),
)
def test_the_longest_could_not_be_shortened_by_another_share(members, room):
    clock = SimulatedClock()
    with use_clock(clock):
        shares = Shares(str(number) for number in range(len(members)))
        joined = [shares.of(str(number)) for number in range(len(members))]
        for share, (most, left, _) in zip(joined, members, strict=True):
            share.begin("cpu", room, most, left + 1)
        for share, (_, _, pace) in zip(joined, members, strict=True):
            share.end_trial()
            share.note_running(1)
            clock.now += pace
            share.advance(1)
        got = [share.workers() for share in joined]
    assert sum(got) <= max(room, len(members))
    assert all(1 <= workers <= most for workers, (most, _, _) in zip(got, members, strict=True))
    if sum(got) < room:
        assert got == [most for most, _, _ in members], "what is free could be used"


def test_they_measure_one_after_another(clock):
    shares = Shares(["a", "b"])
    first, second = shares.of("a"), shares.of("b")
    assert first.may_try()
    assert not second.may_try()
    first.end_trial()
    assert second.may_try()
    second.end()
    assert first.may_try()


def test_one_whose_worker_has_not_started_keeps_none_from_measuring(clock):
    shares = Shares(["a", "b"])
    slow, quick = shares.of("a"), shares.of("b")
    slow.begin("cuda", 1, 1, 10)
    quick.begin("cpu", 1, 1, 10)
    waiting = SimulatedExecutor(lambda: Scripted({}), 1, clock, load_seconds=1e4)
    first = Scheduler(units(3), waiting, lambda *_: None, None, units(1), share=slow)
    with pytest.raises(RunError, match="no worker started within"):
        first.run()
    done = []
    started = SimulatedExecutor(lambda: Scripted({}), 1, clock)
    dispatch(units(3), started, on_done=lambda _, value: done.append(value), first=units(1), share=quick)
    assert done == [0, 0, 1, 2]


def test_a_dispatch_waits_for_the_others_measurement_however_long_it_takes(clock):
    shares = Shares(["a", "b"])
    measuring, waiting = shares.of("a"), shares.of("b")
    assert measuring.may_try()
    waiting.begin("cpu", 1, 1, 10)
    executor, done = SimulatedExecutor(lambda: Scripted({}), 1, clock), []
    look = waiting.may_try

    def until_two_hours():
        if clock.now > 7200:
            measuring.end_trial()
        return look()

    waiting.may_try = until_two_hours
    dispatch(units(2), executor, on_done=lambda _, value: done.append(value), first=units(1), share=waiting)
    assert done == [0, 0, 1]
    assert clock.now > 7200


def test_a_share_that_is_stopped_ends_its_dispatch(clock):
    shares = Shares(["a"])
    share = shares.of("a")
    share.begin("cpu", 2, 2, 10)
    executor, done = SimulatedExecutor(lambda: Scripted({}), 2, clock), []

    def on_done(work, value):
        done.append(value)
        shares.stop()

    with pytest.raises(StoppedError):
        dispatch(units(10), executor, on_done=on_done, share=share)
    assert len(done) < 10
    assert sorted(executor.started) == sorted(set(executor.killed))


def test_a_dispatch_gives_workers_back_when_its_share_shrinks(clock):
    shares = Shares(["a"])
    share = shares.of("a")
    share.begin("cpu", 4, 4, 100)
    executor, seen = SimulatedExecutor(lambda: Scripted({}), 4, clock), []
    other = shares.of("b")

    def on_done(work, value):
        share.advance(1)
        seen.append(len(executor.started) - len(set(executor.killed)))
        if len(seen) == 60:
            other.begin("cpu", 4, 4, 100)

    dispatch(units(200), executor, on_done=on_done, share=share)
    assert max(seen[:60]) == 4
    assert max(seen[90:]) == 3


def test_a_wrong_pace_is_corrected(clock):
    shares = Shares(["a", "b"])
    first, second = shares.of("a"), shares.of("b")
    for share in (first, second):
        share.begin("cpu", 10, 10, 10**4)
        share.note_running(1)
    clock.now = 100.0
    first.advance(10)
    second.advance(10)
    assert (first.workers(), second.workers()) == (5, 5)
    for _ in range(20):
        clock.now += 1.0
        first.advance(100)
        second.advance(10)
    assert first.workers() < second.workers()


def test_a_dispatch_without_a_place_waits_for_those_beside_it(clock):
    """They hold the places: that is no reason to end after half an hour."""
    shares = Shares(["a", "b"])
    holder, waiting = shares.of("a"), shares.of("b")
    holder.begin("cpu", 1, 1, 10)
    holder.note_running(1)
    waiting.begin("cpu", 1, 1, 10)
    executor, done = SimulatedExecutor(lambda: Scripted({}), 1, clock, load_seconds=9000), []
    dispatch(units(2), executor, on_done=lambda _, value: done.append(value), share=waiting)
    assert done == [0, 1]


def test_memory_that_ran_out_beside_others_is_held_against_no_row(clock):
    shares = Shares(["a", "b"])
    other, one = shares.of("a"), shares.of("b")
    other.begin("cpu", 1, 1, 10)
    other.note_running(1)
    one.begin("cpu", 1, 1, 10)
    deeds = {0: [OutOfMemory() for _ in range(5)]}
    executor, done = SimulatedExecutor(lambda: Scripted(deeds), 1, clock), []
    assert dispatch(units(3), executor, on_done=lambda _, value: done.append(value), share=one) == []
    assert sorted(done) == [0, 1, 2]


def test_the_loss_of_a_worker_that_measured_lets_the_others_measure(clock):
    shares = Shares(["a", "b"])
    losing, other = shares.of("a"), shares.of("b")
    losing.begin("cpu", 1, 1, 10)
    seen = []
    deeds = {0: [NodeLost()]}
    executor = SimulatedExecutor(lambda: Scripted(deeds), 1, clock)

    def on_running(count):
        if not count:
            seen.append(other.may_try())
            other.release_trial()

    dispatch(units(2), executor, on_done=lambda *_: None, first=units(1), share=losing, on_running=on_running)
    assert seen[0]
