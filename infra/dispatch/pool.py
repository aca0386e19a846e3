"""The workers of one dispatch: started as needed, kept busy, given up when they die or take too long."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from barycenter.fusion.errors import RunError
from barycenter.infra.clock import Clock
from barycenter.infra.dispatch.executor import Done, Executor, Failure, Lost, StartedWorker
from barycenter.infra.dispatch.retry import Limits
from barycenter.infra.dispatch.units import Attempts

_POLL_SECONDS = 1.0
_CHECK_SECONDS = 3.0


@dataclass(frozen=True)
class Finished:
    """A call that ended: the unit it was for and what came of it."""

    unit: Attempts
    outcome: Done | Failure


@dataclass(frozen=True)
class LostWorker:
    """A worker that is gone: the units that it held, those at work first, and how many of them were at work."""

    name: str
    why: str
    held: list[Attempts]
    at_work: int


@dataclass
class _Member:
    """A worker, whether it is still loading, and the units it holds with their calls, in order."""

    started: StartedWorker
    loading: bool = True
    held: deque[tuple[Attempts, Any]] = field(default_factory=deque)
    since: float = 0.0

    def calls(self) -> list[Any]:
        return [self.started.loading] if self.loading else [call for _, call in self.held]


class WorkerPool:
    """Equal workers of one executor; how many units each is handed, and how long one may take, are in the limits."""

    def __init__(self, executor: Executor, limits: Limits, clock: Clock) -> None:
        self._executor, self._limits, self._clock = executor, limits, clock
        self._members: dict[str, _Member] = {}
        self._owners: dict[Any, _Member] = {}
        self._last_result = self._checked = clock.monotonic()
        self._slowest: float | None = None

    @property
    def busy(self) -> int:
        """How many workers hold units."""
        return sum(bool(member.held) for member in self._members.values())

    def grow(self, workers: int) -> None:
        """Starts workers until there are so many."""
        while len(self._members) < workers:
            member = _Member(self._executor.start())
            self._members[member.started.name] = member
            self._owners[member.started.loading] = member

    def assign(self, queue: deque[Attempts]) -> None:
        """Gives every worker one unit, then, while there is plenty, one more to wait behind it."""
        loaded = [member for member in self._members.values() if not member.loading]
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
        for call in self._executor.wait(list(self._owners), patience):
            result = self._take(self._owners[call], call)
            if result is not None:
                yield result
        now = self._clock.monotonic()
        for member in list(self._members.values()):
            if member.held and now >= self._deadline(member) and not self._executor.wait([member.held[0][1]], 0):
                yield self._give_up(member, f"no result after {now - member.since:.0f} s")
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
            return self._give_up(member, outcome.why)
        del self._owners[call]
        self._last_result = self._clock.monotonic()
        if member.loading:
            member.loading = False
            if isinstance(outcome, Failure):
                raise outcome.error()
            return None
        unit = next(unit for unit, held in member.held if held == call)
        member.held.remove((unit, call))
        took = self._last_result - member.since
        member.since = self._last_result
        if isinstance(outcome, Done) and (rows := _rows_worked_on(outcome, unit)):
            self._slowest = max(self._slowest or 0.0, took / rows)
        return Finished(unit, outcome)

    def _give_up(self, member: _Member, why: str) -> LostWorker:
        self._release(member)
        held = [unit for unit, _ in member.held]
        return LostWorker(member.started.name, why, held, min(len(held), self._executor.concurrency))

    def _release(self, member: _Member) -> None:
        for call in member.calls():
            self._owners.pop(call, None)
        self._members.pop(member.started.name, None)
        self._executor.kill(member.started)

    def _deadline(self, member: _Member) -> float:
        return member.since + self._limits.timeout(member.held[0][0].rows, self._slowest)

    def _check(self, now: float) -> None:
        """Finds out, every few seconds in which no worker works, whether one still may."""
        if self.busy or now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        self._executor.check_alive()
        if now - self._last_result >= self._limits.start:
            raise RunError(f"no worker started within {now - self._last_result:.0f} s: {self._executor.shortage()}")


def _rows_worked_on(outcome: Done, unit: Attempts) -> int:
    """Rows by which a result says how fast a worker is: those that it says it encoded, else all of the unit's."""
    value = outcome.value
    return int(value.get("encoded", unit.rows)) if isinstance(value, dict) else unit.rows


def _must_wait(unit: Attempts, member: _Member) -> bool:
    """Whether a unit, or one that the worker is at, tolerates nothing beside it."""
    return unit.alone or any(held.alone for held, _ in member.held)
