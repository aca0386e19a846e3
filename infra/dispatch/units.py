"""What dispatch is asked for and what it answers."""

from dataclasses import dataclass
from typing import Any, Protocol


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
    """What a worker class offers: its ``__init__`` loads the model, once in each actor.

    A class may also have ``probe(payload, rows: tuple[int, ...]) -> None``: the same computation on some rows only,
    without lasting effect. With ``concurrency`` n > 1, n units of work run at once on threads of one actor; the class
    decides what of them may overlap.
    """

    def run(self, payload: Any) -> Any:
        """Does one unit of work and commits it; what it returns is small."""


@dataclass(frozen=True)
class Limits:
    """When patience ends.

    Attributes:
        attempts: Tries of one unit of work.
        in_flight: Units handed to a worker at a time; those after the first wait in its process.
        seconds_per_row: Time limit for each row while no rate was seen, None for none at all.
        grace: Seconds on top of it for a unit of work.
        slack: Once units of work were done, the limit for each row is this many times the slowest rate seen.
        start: Seconds until the first worker must have started and loaded its model.
        hunts: Searches for poisoned rows in one unit of work.
    """

    attempts: int = 3
    in_flight: int = 2
    seconds_per_row: float | None = None
    grace: float = 60.0
    slack: float = 30.0
    start: float = 1800.0
    hunts: int = 3

    def timeout(self, rows: int, slowest: float | None = None) -> float | None:
        """Seconds that ``rows`` rows may take, given the slowest rate seen so far in seconds per row.

        >>> Limits(seconds_per_row=10.0).timeout(100), Limits(seconds_per_row=10.0).timeout(100, slowest=0.02)
        (1060.0, 120.0)
        """
        if self.seconds_per_row is None:
            return None
        per_row = self.seconds_per_row if slowest is None else min(self.seconds_per_row, self.slack * slowest)
        return self.grace + per_row * rows
