"""A moment by which a run is to stop. Whatever waits, or hands out work, looks whether it has passed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from barycenter.fusion.errors import DeadlineError
from barycenter.infra.clock import current_clock
from barycenter.infra.logs import bound_fields


@dataclass(frozen=True)
class _Deadline:
    """When, on the clock of this process, and how it was given."""

    at: float
    given: str


_deadline: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline_in(seconds: float | None, given: str) -> Iterator[None]:
    """What runs in the block has so many seconds; within another such block the sooner end counts.

    Args:
        seconds: From now on; None for any time.
        given: How it was asked for, for the message.
    """
    before = _deadline.get()
    made = before if seconds is None else _Deadline(current_clock().monotonic() + seconds, given)
    if made is not None and before is not None and before.at <= made.at:
        made = before
    token = _deadline.set(made)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_deadline() -> None:
    """Looks whether the time of the run is over.

    Raises:
        DeadlineError: It is.
    """
    deadline = _deadline.get()
    if deadline is not None and current_clock().monotonic() >= deadline.at:
        stage = bound_fields().get("stage")
        where = f" in stage {stage}" if stage else ""
        raise DeadlineError(
            f"{deadline.given} is over: stopped{where}; what is done stays done: run again to go on where this stopped"
        )
