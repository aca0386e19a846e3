"""Time, waiting and chance, which a simulation replaces; what a seed decides is not among them."""

import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What retries, deadlines and temporary names use instead of :mod:`time`, :mod:`random` and :mod:`secrets`."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def time(self) -> float:
        """Seconds since 1970, for what people read; it may jump."""

    def sleep(self, seconds: float) -> None:
        """Waits."""

    def uniform(self, low: float, high: float) -> float:
        """A random number between the two."""

    def token(self, size: int) -> str:
        """``size`` random bytes as hexadecimal text, for names that must not meet another's."""


class SystemClock:
    """The machine's own time and randomness."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    uniform = staticmethod(random.uniform)
    token = staticmethod(secrets.token_hex)
    time = staticmethod(time.time)


_current: Clock = SystemClock()


def current_clock() -> Clock:
    """The clock of this process: the system's, unless :func:`use_clock` put another in its place."""
    return _current


def utc_now() -> str:
    """The time in UTC to the second, as ISO 8601 has it."""
    return datetime.fromtimestamp(current_clock().time(), UTC).isoformat(timespec="seconds")


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Replaces the clock of this process, threads included, for the length of the block."""
    global _current
    before, _current = _current, clock
    try:
        yield
    finally:
        _current = before
