"""Workers that are lost through no fault of their work: machines that go, memory that runs out; simulated."""

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.api import dispatch
from tests.infra.dispatch.test_simulated import Scripted, units
from tests.infra.simulation import Crash, NodeLost, OutOfMemory, SimulatedExecutor


def run(clock, deeds, work, workers=2, executor=None, **options):
    executor = executor or SimulatedExecutor(lambda: Scripted(deeds), workers, clock)
    done, lost = [], []
    options |= {"on_done": lambda _, value: done.append(value), "on_lost": lost.append}
    quarantined = dispatch(work, executor, **options)
    return done, quarantined, lost, executor


def test_a_unit_whose_machine_is_lost_is_not_charged(clock):
    done, quarantined, lost, _ = run(clock, {3: [NodeLost() for _ in range(9)]}, units(12), workers=4)
    assert (sorted(done), quarantined) == (list(range(12)), [])
    assert [each.cause for each in lost] == ["node"] * 9


def test_a_unit_that_takes_every_machine_down_is_charged_in_the_end(clock):
    done, quarantined, _, _ = run(clock, {1: [NodeLost() for _ in range(99)]}, units(30), workers=8)
    assert sorted(done) == [number for number in range(30) if number != 1]
    assert [(each.id, each.detail) for each in quarantined] == [("1", "its node was lost")]


def test_machines_that_all_go_end_the_run(clock):
    deeds = {number: [NodeLost() for _ in range(99)] for number in range(9)}
    with pytest.raises(RunError, match="workers died 9 times in a row without finishing anything; last: its node"):
        run(clock, deeds, units(9), workers=1)


def test_fewer_work_side_by_side_after_memory_ran_out(clock):
    deeds = {0: [OutOfMemory(), OutOfMemory(), OutOfMemory()]}
    executor = SimulatedExecutor(lambda: Scripted(deeds), 4, clock)
    done, quarantined, lost, _ = run(clock, deeds, units(40), executor=executor)
    assert (sorted(done), quarantined) == (list(range(40)), [])
    assert [each.cause for each in lost] == ["memory"] * 3
    assert len(executor.reserved) == 3
    assert clock.now >= 35, "one worker is left"


def test_a_worker_that_is_alone_has_only_itself_to_blame_for_memory(clock):
    done, quarantined, _, _ = run(clock, {1: [OutOfMemory() for _ in range(9)]}, units(3), workers=1)
    assert sorted(done) == [0, 2]
    assert [(each.id, each.attempts) for each in quarantined] == [("1", 3)]


class Noticed(Scripted):
    """Its machine is given notice while it works on the unit."""

    def __init__(self, executor, unit, machine, deeds):
        super().__init__(deeds)
        self.executor, self.unit, self.machine = executor, unit, machine

    def run(self, payload):
        if payload == self.unit:
            self.executor.notices.add(self.machine)
        return super().run(payload)


def test_a_machine_that_was_given_notice_gets_no_more_work(clock):
    made = []

    def make():
        made.append(Noticed(executor, 5, 0, {}))
        return made[-1]

    executor = SimulatedExecutor(make, 2, clock)
    done, quarantined, lost, _ = run(clock, {}, units(60), executor=executor)
    assert (sorted(done), quarantined, lost) == (list(range(60)), [], [])
    assert "simulated-0" in executor.killed
    assert len(executor.started) == 3, "another takes its place"


def test_what_is_lost_with_a_machine_that_was_given_notice_is_not_charged(clock):
    deeds = {1: [Crash()]}
    executor = SimulatedExecutor(lambda: Noticed(executor, 0, 0, deeds), 1, clock, seconds=8.0)
    done, quarantined, lost, _ = run(clock, deeds, units(3), executor=executor)
    assert (sorted(done), quarantined) == ([0, 1, 2], [])
    assert [(each.cause, each.expected) for each in lost] == [("node", True)]


def test_more_are_asked_for_as_those_before_have_started(clock):
    executor = SimulatedExecutor(lambda: Scripted({}), 20, clock)
    executor.at_first = 2
    asked = []
    start = executor.start

    def counted():
        asked.append(clock.monotonic())
        return start()

    executor.start = counted
    done, _, _, _ = run(clock, {}, units(200), executor=executor)
    assert sorted(done) == list(range(200))
    assert asked.count(0.0) == 2
    assert sum(when <= 5.0 for when in asked) <= 4
    assert len(asked) == 20
