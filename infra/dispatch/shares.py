"""Workers shared out among dispatches that run side by side: each its part of the work that is left."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from barycenter.fusion.errors import BarycenterError
from barycenter.infra.clock import current_clock


class StoppedError(BarycenterError):
    """A dispatch is to end because another one, or the run, did."""


@dataclass
class _Member:
    """A dispatch: its kind of device, how many workers of its size there is room for, how many it could use.

    ``left`` and ``done`` are rows, ``spent`` seconds of its workers until ``seen``; ``running`` workers have started.
    ``divided_at`` are the rows that were done when workers were last shared out by its pace.
    """

    device: str
    room: int
    most: int
    left: float
    seen: float
    workers: int = 1
    running: int = 0
    done: float = 0.0
    spent: float = 0.0
    divided_at: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds until it is done with the workers it has."""
        return self.left * self.spent / max(self.done, 1.0) / self.workers

    def spend(self, now: float) -> None:
        """Counts the seconds of its workers until now."""
        self.spent += (now - self.seen) * self.running
        self.seen = now


class Shares:
    """Shares out the workers of one cluster; one device's among those that use it.

    Each dispatch is entitled to its part of the cluster by the seconds of work that it has left, by its own measured
    pace, and to one worker at least. Shares change when a dispatch begins, when its pace is first known, each time that
    it has done twice as much as at the last change, and when it ends: its workers then become the others'. Where trials
    measure, they do so one after another.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._lock = threading.RLock()
        self._members: dict[str, _Member] = {}
        self._to_come = set(names)
        self._stopped = False
        self._on_trial: str | None = None

    def of(self, name: str) -> "Share":
        """The share of one dispatch."""
        return Share(self, name)

    def stop(self) -> None:
        """Ends all dispatches, as soon as they look."""
        self._stopped = True

    def _check(self) -> None:
        if self._stopped:
            raise StoppedError("ended with the run")

    def _divide(self) -> None:
        for device in {member.device for member in self._members.values()}:
            among = [member for member in self._members.values() if member.device == device]
            for member in among:
                member.workers = 1
            others = self._to_come if len(among) == len(self._members) else set()
            spare = max(member.room for member in among) - len(among) - len(others)
            while spare > 0 and (growing := [each for each in among if each.spent and each.workers < each.most]):
                max(growing, key=lambda member: member.seconds).workers += 1
                spare -= 1


class Share:
    """One dispatch's part in :class:`Shares`."""

    def __init__(self, shares: Shares, name: str) -> None:
        self._shares, self._name = shares, name

    def begin(self, device: str, room: int, most: int, left: float) -> None:
        """Enters the dispatch.

        Args:
            device: What its workers run on; those of another device are not shared with it.
            room: Workers of its size that the cluster could hold.
            most: Workers that it could use.
            left: Rows of work that it has.
        """
        with self._shares._lock:
            self._shares._to_come.discard(self._name)
            self._shares._members[self._name] = _Member(device, room, most, left, current_clock().monotonic())
            self._shares._divide()

    def note_running(self, workers: int) -> None:
        """Says how many workers have started."""
        with self._shares._lock:
            member = self._shares._members[self._name]
            member.spend(current_clock().monotonic())
            member.running = workers

    def advance(self, rows: float) -> None:
        """Counts rows as done: they give its pace."""
        with self._shares._lock:
            member = self._shares._members[self._name]
            member.spend(current_clock().monotonic())
            member.left, member.done = max(0.0, member.left - rows), member.done + rows
            if member.done >= 2 * member.divided_at:
                member.divided_at = member.done
                self._shares._divide()

    def end(self) -> None:
        """Gives everything back."""
        with self._shares._lock:
            self._shares._to_come.discard(self._name)
            self._shares._members.pop(self._name, None)
            self.release_trial()
            self._shares._divide()

    def workers(self) -> int:
        """How many workers the dispatch may have now.

        Raises:
            StoppedError: It is to end.
        """
        self._shares._check()
        return self._shares._members[self._name].workers

    def others_run(self) -> bool:
        """Whether another dispatch has workers, whose places and memory this one may be waiting for."""
        with self._shares._lock:
            return any(member.running for name, member in self._shares._members.items() if name != self._name)

    def may_try(self) -> bool:
        """Whether the dispatch may measure now: no other one is doing so."""
        with self._shares._lock:
            if self._shares._on_trial is None:
                self._shares._on_trial = self._name
            return self._shares._on_trial == self._name

    def release_trial(self) -> None:
        """Lets the others measure."""
        with self._shares._lock:
            if self._shares._on_trial == self._name:
                self._shares._on_trial = None

    def end_trial(self) -> None:
        """Lets the others measure; what was done until now says nothing of the dispatch's pace."""
        self.release_trial()
        with self._shares._lock:
            if member := self._shares._members.get(self._name):
                member.seen, member.spent, member.done = current_clock().monotonic(), 0.0, 0.0
