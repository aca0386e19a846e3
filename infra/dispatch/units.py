"""Units of work: what dispatch is asked for, what it answers, and in which order units are taken."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from barycenter.infra.dispatch.poison_search import PoisonSearch


@dataclass(frozen=True)
class Work:
    """One unit of work, usually a shard.

    Attributes:
        id: Its name in messages.
        payload: What the worker's ``run`` gets; paths and numbers, not data.
        rows: How many rows it holds, for time limits and for the search for a poisoned row.
    """

    id: str
    payload: Any
    rows: int


@dataclass(frozen=True)
class Quarantined:
    """Work, or rows of it, that no worker survives.

    Attributes:
        id: The work's id.
        attempts: How often it was tried.
        detail: What happened the last time.
        rows: Numbers of the guilty rows within the work, which was then done without them; empty when the whole work
            was given up.
    """

    id: str
    attempts: int
    detail: str
    rows: tuple[int, ...] = ()


class Worker(Protocol):
    """What a worker class offers: its ``__init__`` loads the model, once in each process.

    For the search for poisoned rows a class also has ``try_rows(payload, rows: tuple[int, ...]) -> None``: the same
    computation on some rows only, without lasting effect. With ``concurrency`` n > 1, n units of work run at once on
    threads of one worker; the class decides what of them may overlap.
    """

    def run(self, payload: Any) -> Any:
        """Does one unit of work and commits it; doing it again must give the same. What it returns is small."""


@dataclass(eq=False)
class Attempts:
    """A unit of work on its way.

    Attributes:
        work: The unit, without the rows that were found guilty.
        rows_at_first: Its rows before any was removed; row numbers count in these.
        failures: Failures since the last search for poisoned rows, trials of rows not among them.
        tries: Failures of all kinds.
        detail: What happened the last time.
        alone: Must be tried with nothing beside it in its worker.
        search: The search for its poisoned rows, while there is one.
        trial: Rows that the search wants tried next.
        searches: Searches begun.
        moves: Times that its worker was lost through no fault of the unit.
        removed: Rows found guilty.
    """

    work: Work
    rows_at_first: int
    failures: int = 0
    tries: int = 0
    detail: str = ""
    alone: bool = False
    search: PoisonSearch | None = None
    trial: tuple[int, ...] | None = None
    searches: int = 0
    moves: int = 0
    removed: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the next call."""
        return self.rows_at_first if self.trial is None else len(self.trial)

    def quarantined(self, rows: tuple[int, ...] = ()) -> Quarantined:
        """The record of giving up some rows, or all."""
        return Quarantined(self.work.id, self.tries, self.detail, rows)


class WorkSource:
    """Hands out units as they are needed: one of ``first``, and only when that is done the others.

    Where one of ``first`` failed for good, the next is tried. Nothing is kept of ``work``.
    """

    def __init__(self, work: Iterable[Work], first: Sequence[Work] = ()) -> None:
        self._work: Iterator[Work] = iter(work)
        self._first = deque(first)
        self._waiting_for: Work | None = None
        self._started = not first
        self._exhausted = False

    def take(self, room: int) -> Iterator[Attempts]:
        """At most ``room`` units."""
        if not self._started:
            self._started = True
            yield self._next_first()
        while self._waiting_for is None and not self._exhausted and room > 0:
            room -= 1
            try:
                work = next(self._work)
                yield Attempts(work, work.rows)
            except StopIteration:
                self._exhausted = True

    def done(self, work: Work) -> None:
        """Opens the way to the other units if this was the first."""
        if work is self._waiting_for:
            self._waiting_for = None

    def replacement(self, work: Work) -> Attempts | None:
        """The unit to try instead of a first one that failed for good; None where there is none."""
        return self._next_first() if work is self._waiting_for and self._first else None

    @property
    def at_first(self) -> bool:
        """Whether one of ``first`` is still to be done."""
        return self._waiting_for is not None

    @property
    def at_end(self) -> bool:
        """Whether every unit has been handed out."""
        return self._exhausted and self._waiting_for is None

    def _next_first(self) -> Attempts:
        self._waiting_for = self._first.popleft()
        return Attempts(self._waiting_for, self._waiting_for.rows)
