import random

import pytest

from tests.simulation.kernel import Kernel, Killed, Process, Violation
from tests.simulation.schedule import QUIET, Explorer, Replay, shortest


def letters(kernel, said, name, times=3):
    def body():
        for number in range(times):
            kernel.step(f"say {number}")
            said.append(f"{name}{number}")

    kernel.spawn(Process(name, 0), body)


def test_threads_are_switched_where_the_schedule_says():
    said = []
    kernel = Kernel(Replay({"a#2": ("switch", "b"), "b#2": ("switch", "a")}))
    letters(kernel, said, "a")
    letters(kernel, said, "b")
    kernel.run()
    assert said == ["a0", "b0", "a1", "a2", "b1", "b2"]


def test_one_seed_is_one_schedule_and_its_record_replays():
    def played(chooser):
        said = []
        kernel = Kernel(chooser)
        for name in "abc":
            letters(kernel, said, name, 20)
        kernel.run()
        return said

    seed = next(seed for seed in range(100) if len(set(map(str, [played(Explorer(seed)), played(QUIET)]))) == 2)
    explorer = Explorer(seed)
    first = played(explorer)
    assert played(Explorer(seed)) == first == played(Replay(explorer.actions))


def test_time_passes_only_while_nobody_can_run():
    kernel, woke = Kernel(QUIET, tick=0.0), []

    def body(seconds):
        kernel.sleep(seconds)
        woke.append((seconds, kernel.now))

    for seconds in (30.0, 10.0, 20.0):
        kernel.spawn(Process(str(seconds), 0), lambda seconds=seconds: body(seconds))
    kernel.run()
    assert woke == [(10.0, 10.0), (20.0, 20.0), (30.0, 30.0)]


def test_a_killed_process_does_nothing_more_in_any_of_its_threads():
    kernel, did = Kernel(Replay({"a#2": ("kill",)})), []
    process = Process("a", 0)

    def body():
        kernel.spawn(process, lambda: (kernel.sleep(1), did.append("second thread")), "a.second")
        kernel.step("one")
        did.append("one")
        try:
            kernel.step("two")
            did.append("two")
        finally:
            with pytest.raises(Killed):
                kernel.step("clean up")

    kernel.spawn(process, body)
    kernel.run()
    assert did == ["one"]


def test_a_frozen_process_stops_with_all_its_threads():
    kernel, times = Kernel(Replay({"a#2": ("freeze", 50.0)}), tick=0.0), []
    process = Process("a", 0)

    def second():
        kernel.sleep(10)
        times.append(("second", kernel.now))

    def body():
        kernel.spawn(process, second, "a.second")
        kernel.sleep(1)
        kernel.step("one")
        times.append(("main", kernel.now))
        kernel.sleep(1)

    kernel.spawn(process, body)
    kernel.run()
    assert sorted(times) == [("main", 51.0), ("second", 51.0)]


def test_threads_that_wait_for_each_other_for_ever_are_a_failure():
    kernel = Kernel(QUIET)
    kernel.spawn(Process("a", 0), lambda: kernel.wait(lambda: False))
    with pytest.raises(Violation, match="all wait for each other: a"):
        kernel.run()


def test_what_a_thread_raises_ends_the_simulation():
    kernel = Kernel(QUIET)
    kernel.spawn(Process("a", 0), lambda: 1 / 0)
    kernel.spawn(Process("b", 0), lambda: kernel.sleep(1e9))
    with pytest.raises(ZeroDivisionError):
        kernel.run()


def test_the_shortest_part_that_fails_is_found():
    items = list(range(60))
    random.Random(1).shuffle(items)
    assert sorted(shortest(items, lambda part: {7, 23, 41} <= set(part))) == [7, 23, 41]
