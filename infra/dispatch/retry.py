"""When to try a unit of work again and when to stop: attempts, time limits, workers that die in a row."""

import logging
from dataclasses import dataclass

from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.executor import Failure
from barycenter.infra.dispatch.units import Attempts

log = logging.getLogger(__name__)

_LOSSES_IN_A_ROW = 6


@dataclass(frozen=True)
class Limits:
    """When a dispatch gives up.

    Attributes:
        attempts: Tries of one unit of work.
        in_flight: Units handed to a worker at a time; those after the first wait in its process.
        seconds_per_row: Time limit for each row while no rate was seen.
        grace: Seconds on top of it for a unit of work.
        slack: Once units of work were done, the limit for each row is this many times the slowest rate seen.
        start: Seconds until the first worker must have started and loaded its model.
        searches: Searches for poisoned rows in one unit of work.
    """

    attempts: int = 3
    in_flight: int = 2
    seconds_per_row: float = 10.0
    grace: float = 300.0
    slack: float = 30.0
    start: float = 1800.0
    searches: int = 3

    def timeout(self, rows: int, slowest: float | None = None) -> float:
        """Seconds that ``rows`` rows may take, given the slowest rate seen so far in seconds per row.

        >>> Limits().timeout(100), Limits().timeout(100, slowest=0.02), Limits().timeout(0)
        (1300.0, 360.0, 1800.0)
        """
        if not rows:
            return self.start
        per_row = self.seconds_per_row if slowest is None else min(self.seconds_per_row, self.slack * slowest)
        return self.grace + per_row * rows


class RetryPolicy:
    """Counts failures of units and losses of workers; the more ``workers``, the more may die in a row."""

    def __init__(self, attempts: int, workers: int) -> None:
        self._attempts = attempts
        self._most_losses = max(_LOSSES_IN_A_ROW, 2 * workers) * attempts // 2
        self._losses = 0

    def succeeded(self) -> None:
        """A unit was done: workers do not die in a row."""
        self._losses = 0

    def lost(self, why: str) -> None:
        """A worker died.

        Raises:
            RunError: Too many did, and nothing was done between.
        """
        self._losses += 1
        if self._losses >= self._most_losses:
            raise RunError(
                f"workers died {self._losses} times in a row without finishing anything; last: {why}; remove the cause "
                "and run again"
            )

    def again(self, unit: Attempts, failure: Failure | None) -> bool:
        """Charges a failure (None if the worker died or took too long) to a unit; whether it is to be tried again.

        Raises:
            RunError: The attempts are used up, and the surroundings were at fault.
        """
        unit.failures += 1
        if unit.failures < self._attempts:
            log.warning(
                "%s failed (%d of %d): %s", unit.work.id, unit.failures, self._attempts, unit.detail,
                extra={"shard": unit.work.id, "attempt": unit.failures},
            )  # fmt: skip
            return True
        if failure is not None and failure.environment:
            raise failure.error()
        return False

    def once_more(self, unit: Attempts) -> None:
        """Leaves a unit one last attempt."""
        unit.failures = self._attempts - 1
