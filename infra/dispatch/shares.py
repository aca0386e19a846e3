"""Workers shared out among dispatches that run side by side: each its part of the work that is left."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from barycenter.infra.clock import current_clock


class StoppedError(Exception):
    """A dispatch is to end because another one, or the run, did."""


@dataclass
class _Member:
    """A dispatch: its kind of device, how many workers of its size there is room for, how many it could use.

    ``left`` rows of work, ``pace`` seconds of one worker for a row, ``began`` when it last had something to measure by.
    """

    device: str
    room: int
    most: int
    left: float
    began: float
    pace: float | None = None
    workers: int = 1

    @property
    def seconds(self) -> float:
        """Seconds until it is done with the workers it has."""
        return self.left * (self.pace or 0.0) / self.workers


class Shares:
    """Shares out the workers of one cluster; one device's among those that use it.

    Each dispatch is entitled to its part of the cluster by the seconds of work that it has left, by its own measured
    pace, and to one worker at least. Shares change when a dispatch begins, when its pace is first known and when it
    ends: its workers then become the others'. Where trials measure, they do so one after another.
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
            raise StoppedError("the run ends")

    def _divide(self) -> None:
        for device in {member.device for member in self._members.values()}:
            among = [member for member in self._members.values() if member.device == device]
            for member in among:
                member.workers = 1
            others = self._to_come if len(among) == len(self._members) else set()
            spare = max(member.room for member in among) - len(among) - len(others)
            while spare > 0 and (growing := [each for each in among if each.pace and each.workers < each.most]):
                max(growing, key=lambda member: member.seconds).workers += 1
                spare -= 1


class Share:
    """One dispatch's part in :class:`Shares`; used as a context while it runs."""

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

    def advance(self, rows: float) -> None:
        """Counts rows as done; the first ones give its pace."""
        with self._shares._lock:
            member = self._shares._members[self._name]
            member.left = max(0.0, member.left - rows)
            if member.pace is None and rows:
                member.pace = (current_clock().monotonic() - member.began) * member.workers / rows
                self._shares._divide()

    def end(self) -> None:
        """Gives everything back."""
        with self._shares._lock:
            self._shares._to_come.discard(self._name)
            self._shares._members.pop(self._name, None)
            self.end_trial()
            self._shares._divide()

    def workers(self) -> int:
        """How many workers the dispatch may have now.

        Raises:
            StoppedError: It is to end.
        """
        self._shares._check()
        return self._shares._members[self._name].workers

    def may_try(self) -> bool:
        """Whether the dispatch may measure now: no other one is doing so."""
        with self._shares._lock:
            if self._shares._on_trial is None:
                self._shares._on_trial = self._name
            return self._shares._on_trial == self._name

    def end_trial(self) -> None:
        """Lets the others measure; from now on the dispatch's pace counts."""
        with self._shares._lock:
            if self._shares._on_trial == self._name:
                self._shares._on_trial = None
            if self._name in self._shares._members:
                self._shares._members[self._name].began = current_clock().monotonic()
