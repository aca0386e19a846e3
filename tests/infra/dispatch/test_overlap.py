"""Units of work that overlap in one actor, and a unit that comes before all others."""

import os
import threading
import time
from pathlib import Path

import pytest

from barycenter.infra.dispatch.api import Work
from barycenter.infra.dispatch.executor import WorkerAllocation
from tests.infra.dispatch.dispatching import dispatch
from tests.infra.dispatch.poisoned import Poisoned

ONE, TWO = WorkerAllocation(1, 1), WorkerAllocation(2, 1)


class Overlapping(Poisoned):
    """Two units at once; returns how many were at work; dies of certain rows once both are."""

    concurrency = 2

    def __init__(self, rows=(), folder=None):
        super().__init__(rows, lambda: os._exit(1))
        self.at_work, self.lock, self.folder = 0, threading.Lock(), folder

    def run(self, payload):
        with self.lock:
            self.at_work += 1
        time.sleep(0.2)
        seen = self.at_work
        if self.folder:
            with (Path(self.folder) / f"tried-{payload[0]}").open("a") as file:
                file.write(f"{seen}\n")
        super().run(payload)
        with self.lock:
            self.at_work -= 1
        return seen


def work(number: int, rows: int) -> Work:
    return Work(f"w{number}", (rows, ()), rows)


def without(unit: Work, rows: tuple[int, ...]) -> Work:
    return Work(unit.id, (unit.payload[0], (*unit.payload[1], *rows)), unit.rows)


def test_two_units_overlap_in_one_actor(ray_session):
    seen = []
    units = [work(number, 0) for number in range(6)]
    dispatch(
        units,
        worker=Overlapping,
        allocation=ONE,
        name="t",
        on_done=lambda unit, at_once: seen.append((unit.id, at_once)),
    )
    assert sorted(unit for unit, _ in seen) == [f"w{n}" for n in range(6)]
    assert max(at_once for _, at_once in seen) == 2


@pytest.mark.slow
def test_of_two_at_work_in_a_dying_actor_the_guilty_one_is_found(ray_session, tmp_path):
    """Row 7 exists in the unit of eight rows only; the one beside it is never charged for its crashes."""
    done = []
    quarantined = dispatch(
        [work(0, 8), work(1, 3)],
        worker=Overlapping,
        args=({7}, str(tmp_path)),
        allocation=ONE,
        name="t",
        on_done=lambda unit, _: done.append((unit.id, unit.payload[1])),
        without_rows=without,
        attempts=2,
    )
    assert sorted(done) == [("w0", (7,)), ("w1", ())]
    assert [(each.id, each.rows) for each in quarantined] == [("w0", (7,))]
    assert len((tmp_path / "tried-3").read_text().split()) <= 2


def test_the_first_unit_is_done_before_the_others_are_asked_for(ray_session):
    events = []

    class Naming:
        def run(self, payload):
            return payload

    def units():
        for number in range(4):
            events.append("asked")
            yield work(number, 1)

    dispatch(
        units(), worker=Naming, allocation=TWO, name="t", first=[Work("first", "first", 0)],
        on_done=lambda unit, _: events.append(unit.id),
    )  # fmt: skip
    assert events[:2] == ["first", "asked"]
    assert sorted(event for event in events if event != "asked") == ["first", "w0", "w1", "w2", "w3"]


def test_nothing_is_asked_for_when_the_first_unit_fails(ray_session):
    class Failing:
        def run(self, payload):
            raise ValueError("no")

    asked = iter([work(0, 1)])
    quarantined = dispatch(
        asked,
        worker=Failing,
        allocation=TWO,
        name="t",
        first=[Work("first", "first", 0)],
        on_done=lambda *_: None,
        attempts=1,
    )
    assert [each.id for each in quarantined] == ["first"]
    assert next(asked).id == "w0"
