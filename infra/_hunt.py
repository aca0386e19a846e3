"""Which rows of a shard bring its worker down: bisection, one probe at a time."""

from collections import deque
from dataclasses import dataclass, field

MOST_PROBES = 400
_CONFIRMATIONS = 2


@dataclass
class Hunt:
    """The state of one search; it asks for probes and is told how they went.

    A single row is guilty when it failed twice, so that the loss of a node during a probe blames nobody. The search
    gives up after 400 probes: then it is not a matter of a few rows.

    >>> hunt = Hunt.over(range(8))
    >>> while rows := hunt.next_probe():
    ...     hunt.told(rows, failed=5 in rows)
    >>> hunt.guilty
    [5]
    """

    open: deque[tuple[int, ...]]
    guilty: list[int] = field(default_factory=list)
    _failures: dict[int, int] = field(default_factory=dict)
    _probes: int = 0

    @classmethod
    def over(cls, rows: range | list[int]) -> "Hunt":
        """A search among the given row numbers of a shard."""
        hunt = cls(deque())
        hunt._halve(tuple(rows))
        return hunt

    @property
    def gave_up(self) -> bool:
        """Whether too many probes failed to pin it on a few rows."""
        return self._probes >= MOST_PROBES

    def next_probe(self) -> tuple[int, ...] | None:
        """Rows to try alone; None when the search is over."""
        if not self.open or self.gave_up:
            return None
        self._probes += 1
        return self.open.popleft()

    def told(self, rows: tuple[int, ...], failed: bool) -> None:
        """The outcome of a probe."""
        if not failed:
            return
        if len(rows) > 1:
            self._halve(rows)
            return
        (row,) = rows
        self._failures[row] = self._failures.get(row, 0) + 1
        if self._failures[row] >= _CONFIRMATIONS:
            self.guilty.append(row)
        else:
            self.open.appendleft(rows)

    def _halve(self, rows: tuple[int, ...]) -> None:
        middle = len(rows) // 2
        self.open.extendleft(half for half in (rows[middle:], rows[:middle]) if half)
