"""Takes poisoned rows out of a unit of work, so that the rest of it is done."""

import logging
from collections.abc import Callable
from enum import Enum, auto

from barycenter.infra.dispatch.poison_search import PoisonSearch
from barycenter.infra.dispatch.units import Attempts, Work

log = logging.getLogger(__name__)

WithoutRows = Callable[[Work, tuple[int, ...]], Work]


class Step(Enum):
    """What follows in the isolation of a unit's poisoned rows."""

    TRY_ROWS = auto()
    ROWS_FOUND = auto()
    NONE_FOUND = auto()
    GIVE_UP = auto()


class PoisonIsolation:
    """Searches a unit that failed too often for the rows that fail it.

    Args:
        without_rows: A unit of work without some of its rows, numbered as in the original unit; None where units
            cannot be divided.
        most_searches: In one unit.
    """

    def __init__(self, without_rows: WithoutRows | None, most_searches: int) -> None:
        self._without_rows, self._most_searches = without_rows, most_searches

    def begin(self, unit: Attempts) -> Step:
        """Starts a search, if the unit can be searched."""
        if self._without_rows is None or unit.rows_at_first < 1 or unit.searches >= self._most_searches:
            return Step.GIVE_UP
        log.warning("%s failed %d times (%s); searching for the row", unit.work.id, unit.failures, unit.detail)
        unit.searches += 1
        unit.search = PoisonSearch.over([row for row in range(unit.rows_at_first) if row not in unit.removed])
        return self._next(unit, unit.search)

    def record(self, unit: Attempts, failed: bool) -> Step:
        """Takes note of how the trial of rows went that the unit was at."""
        assert unit.search is not None
        assert unit.trial is not None
        unit.search.record(unit.trial, failed)
        return self._next(unit, unit.search)

    def remove(self, unit: Attempts, rows: tuple[int, ...]) -> None:
        """Goes on with the unit without these rows, its failures forgotten."""
        assert self._without_rows is not None
        unit.removed += rows
        unit.work = self._without_rows(unit.work, rows)
        unit.failures = 0

    def _next(self, unit: Attempts, search: PoisonSearch) -> Step:
        unit.trial = search.next_trial()
        if unit.trial is not None:
            return Step.TRY_ROWS
        if search.gave_up:
            return Step.GIVE_UP
        return Step.ROWS_FOUND if search.guilty else Step.NONE_FOUND
