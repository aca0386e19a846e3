"""A moment by which a run is to stop. Whatever waits, or hands out work, looks whether it has passed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from barycenter.fusion.errors import DeadlineError
from barycenter.infra.clock import current_clock
from barycenter.infra.logs import bound_fields


@dataclass(frozen=True)
class Deadline:
    """When a run's time is over.

    Attributes:
        at: On the clock of this process, in seconds.
        given: How it was asked for, for the message.
    """

    at: float
    given: str


def deadline_in(seconds: float | None, given: str) -> Deadline | None:
    """The deadline so many seconds from now on; None for any time."""
    return None if seconds is None else Deadline(current_clock().monotonic() + seconds, given)


_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def until(deadline: Deadline | None) -> Iterator[None]:
    """What runs in the block has until then; within another such block the sooner end counts."""
    before = _deadline.get()
    sooner = min(filter(None, (before, deadline)), key=lambda each: each.at, default=None)
    token = _deadline.set(sooner)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_deadline(where: str | None = None) -> None:
    """Looks whether the time of the run is over; ``where`` it is, by default in the stage that log lines name.

    Raises:
        DeadlineError: It is.
    """
    deadline = _deadline.get()
    if deadline is not None and current_clock().monotonic() >= deadline.at:
        where = where or f"in stage {bound_fields().get('stage', 'plan')}"
        raise DeadlineError(
            f"{deadline.given} is over: stopped {where}; what is done stays done: run again to go on where this stopped"
        )
