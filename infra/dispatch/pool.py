"""The workers of one dispatch: started as needed, kept busy, given up when they die or take too long."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from barycenter.fusion.errors import RunError
from barycenter.infra.clock import Clock
from barycenter.infra.dispatch.executor import Cause, Done, Executor, Failure, Lost, StartedWorker
from barycenter.infra.dispatch.retry import Limits
from barycenter.infra.dispatch.units import Attempts

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_CHECK_SECONDS = 3.0
_QUIET_SECONDS = 15.0
_REPORT_SECONDS = 60.0


@dataclass(frozen=True)
class Finished:
    """A call that ended: the unit it was for and what came of it."""

    unit: Attempts
    outcome: Done | Failure


@dataclass(frozen=True)
class LostWorker:
    """A worker that is gone: the units that it held, those at work first, and how many of them were at work.

    ``expected``: its machine had given notice.
    """

    name: str
    why: str
    held: list[Attempts]
    at_work: int
    cause: Cause = "work"
    expected: bool = False


@dataclass
class _Member:
    """A worker, whether it is still loading, on which machine it is, and the units it holds with their calls."""

    started: StartedWorker
    loading: bool = True
    machine: Any = None
    held: deque[tuple[Attempts, Any]] = field(default_factory=deque)
    since: float = 0.0

    def calls(self) -> list[Any]:
        return [self.started.loading] if self.loading else [call for _, call in self.held]


class WorkerPool:
    """Equal workers of one executor; how many units each is handed, and how long one may take, are in the limits."""

    def __init__(
        self, executor: Executor, limits: Limits, clock: Clock, waits_for_others: Callable[[], bool] = lambda: False
    ) -> None:
        self._executor, self._limits, self._clock = executor, limits, clock
        self._waits_for_others = waits_for_others
        self._members: dict[str, _Member] = {}
        self._owners: dict[Any, _Member] = {}
        self._last_result = self._checked = self._looked = clock.monotonic()
        self._reported = self._last_result - _REPORT_SECONDS + _QUIET_SECONDS
        self._leaving: frozenset[Any] = frozenset()
        self._slowest: float | None = None

    @property
    def busy(self) -> int:
        """How many workers hold units."""
        return sum(bool(member.held) for member in self._members.values())

    @property
    def running(self) -> int:
        """How many workers have started."""
        return sum(not member.loading for member in self._members.values())

    def grow(self, workers: int) -> None:
        """Starts workers until there are so many; where they wait for machines, twice as many as have started."""
        asked = min(workers, max(self._executor.at_first, 2 * self.running))
        while len(self._members) < asked:
            member = _Member(self._executor.start())
            self._members[member.started.name] = member
            self._owners[member.started.loading] = member

    def assign(self, queue: deque[Attempts], workers: int) -> None:
        """Gives each of so many workers one unit, then, while there is plenty, one more to wait behind it."""
        staying = [each for each in self._members.values() if each.machine not in self._leaving]
        loaded = [each for each in sorted(staying, key=lambda each: each.loading)[:workers] if not each.loading]
        for depth in range(self._limits.in_flight):
            if depth and len(queue) < len(self._members):
                break
            for member in loaded:
                if queue and len(member.held) == depth and not (depth and _must_wait(queue[0], member)):
                    self._submit(member, queue.popleft())

    def release_idle(self) -> None:
        """Ends the workers that hold nothing."""
        for member in [each for each in self._members.values() if not each.held]:
            self._release(member)

    def shrink(self, workers: int) -> None:
        """Ends workers that hold nothing until there are no more than so many, those that still load first."""
        idle = sorted((each for each in self._members.values() if not each.held), key=lambda each: not each.loading)
        for member in idle[: max(0, len(self._members) - workers)]:
            self._release(member)

    def close(self) -> None:
        """Ends all workers."""
        for member in list(self._members.values()):
            self._release(member)

    def wait(self) -> Iterator[Finished | LostWorker]:
        """Waits, a second at most so that signals are handled, for calls to end or to exceed their time.

        Raises:
            RunError: A worker's ``__init__`` failed, the executor is gone, or no worker has started for too long.
            JobError: A worker's ``__init__`` found the job wrong.
        """
        ends = [self._deadline(member) for member in self._members.values() if member.held]
        patience = min([_POLL_SECONDS, *(max(0.0, end - self._clock.monotonic()) for end in ends)])
        if not self._owners:
            self._clock.sleep(patience)
        for call in self._executor.wait(list(self._owners), patience):
            result = self._take(self._owners[call], call)
            if result is not None:
                yield result
        now = self._clock.monotonic()
        for member in list(self._members.values()):
            if member.held and now >= self._deadline(member) and not self._executor.wait([member.held[0][1]], 0):
                yield self._give_up(member, f"no result after {now - member.since:.0f} s")
        self._look_for_leaving(now)
        self._check(now)

    def _submit(self, member: _Member, unit: Attempts) -> None:
        if unit.trial is None:
            call = self._executor.submit(member.started, "run", unit.work.payload)
        else:
            call = self._executor.submit(member.started, "try_rows", unit.work.payload, unit.trial)
        if not member.held:
            member.since = self._clock.monotonic()
        member.held.append((unit, call))
        self._owners[call] = member

    def _take(self, member: _Member, call: Any) -> Finished | LostWorker | None:
        outcome = self._executor.outcome(call)
        if isinstance(outcome, Lost):
            return self._give_up(member, outcome.why, outcome.cause)
        del self._owners[call]
        self._last_result = self._clock.monotonic()
        if member.loading:
            member.loading = False
            if isinstance(outcome, Failure):
                raise outcome.error()
            member.machine = outcome.value
            return None
        unit = next(unit for unit, held in member.held if held == call)
        member.held.remove((unit, call))
        took = self._last_result - member.since
        member.since = self._last_result
        if isinstance(outcome, Done) and (rows := _rows_worked_on(outcome, unit)):
            self._slowest = max(self._slowest or 0.0, took / rows)
        return Finished(unit, outcome)

    def _give_up(self, member: _Member, why: str, cause: Cause = "work") -> LostWorker:
        self._release(member)
        held = [unit for unit, _ in member.held]
        at_work, expected = min(len(held), self._executor.concurrency), member.machine in self._leaving
        return LostWorker(member.started.name, why, held, at_work, "node" if expected else cause, expected)

    def _release(self, member: _Member) -> None:
        for call in member.calls():
            self._owners.pop(call, None)
        self._members.pop(member.started.name, None)
        self._executor.kill(member.started)

    def _deadline(self, member: _Member) -> float:
        return member.since + self._limits.timeout(member.held[0][0].rows, self._slowest)

    def _look_for_leaving(self, now: float) -> None:
        """Finds out, every few seconds, which machines will go: their workers get nothing more, and end when idle."""
        if now - self._looked < _CHECK_SECONDS:
            return
        self._looked, before = now, self._leaving
        self._leaving = self._executor.leaving()
        for member in [each for each in self._members.values() if each.machine in self._leaving]:
            if member.machine not in before:
                log.warning("the machine of worker %s is about to go: it gets no more work", member.started.name)
            if not member.held:
                self._release(member)

    def _check(self, now: float) -> None:
        """Finds out, every few seconds in which no worker works, whether one still may; says what it waits for."""
        if self.busy or not self._members or now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        self._executor.check_alive()
        if self.running or self._waits_for_others():
            self._last_result = now
            return
        waited, limit = now - self._last_result, self._executor.start_seconds or self._limits.start
        if waited >= limit:
            raise RunError(f"no worker started within {waited:.0f} s: {self._executor.shortage()}")
        if waited >= _QUIET_SECONDS and now - self._reported >= _REPORT_SECONDS:
            self._reported = now
            asked, shortage = len(self._members), self._executor.shortage()
            log.warning("waiting %.0f s (of %.0f) for a first worker of %d: %s", waited, limit, asked, shortage)


def _rows_worked_on(outcome: Done, unit: Attempts) -> int:
    """Rows by which a result says how fast a worker is: those that it says it encoded, else all of the unit's."""
    value = outcome.value
    return int(value.get("encoded", unit.rows)) if isinstance(value, dict) else unit.rows


def _must_wait(unit: Attempts, member: _Member) -> bool:
    """Whether a unit, or one that the worker is at, tolerates nothing beside it."""
    return unit.alone or any(held.alone for held, _ in member.held)
