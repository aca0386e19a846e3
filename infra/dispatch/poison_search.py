"""Which rows of a shard bring its worker down: bisection, one trial at a time."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_TRIALS = 400
_CONFIRMATIONS = 2
_SAMPLES = 3
_FEW_ROWS = 16

Rows = tuple[int, ...]


@dataclass
class PoisonSearch:
    """The state of one search; it asks for trials and records how they went.

    A single row is guilty when it failed twice, so that the loss of a node during a trial blames nobody. Where both
    halves fail at first, three single rows far from each other are tried: if all of them fail, it is not a matter of
    rows (the shard cannot be read, the model cannot run), and the search gives up. So it does after 400 trials.

    >>> search = PoisonSearch.over(range(8))
    >>> while rows := search.next_trial():
    ...     search.record(rows, failed=5 in rows)
    >>> search.guilty
    [5]
    """

    open: deque[Rows]
    guilty: list[int] = field(default_factory=list)
    gave_up: bool = False
    _halves: list[Rows] = field(default_factory=list)
    _samples: deque[Rows] = field(default_factory=deque)
    _failures: dict[int, int] = field(default_factory=dict)
    _trials: int = 0

    @classmethod
    def over(cls, rows: Sequence[int]) -> "PoisonSearch":
        """A search among the given row numbers of a shard."""
        search = cls(deque())
        search._halve(tuple(rows))
        if len(rows) >= _FEW_ROWS:
            search._halves = list(search.open)
        return search

    def next_trial(self) -> Rows | None:
        """Rows to try alone; None when the search is over."""
        if self._trials >= MOST_TRIALS:
            self.gave_up = True
        if self.gave_up or not (self._samples or self.open):
            return None
        self._trials += 1
        return self._samples[0] if self._samples else self.open.popleft()

    def record(self, rows: Rows, failed: bool) -> None:
        """The outcome of a trial."""
        if self._samples:
            self._sampled(failed)
        elif failed and len(rows) > 1:
            self._halve(rows)
            self._check_halves(rows)
        elif failed:
            (row,) = rows
            self._failures[row] = self._failures.get(row, 0) + 1
            if self._failures[row] >= _CONFIRMATIONS:
                self.guilty.append(row)
            else:
                self.open.appendleft(rows)

    def _halve(self, rows: Rows) -> None:
        middle = len(rows) // 2
        self.open.extend(half for half in (rows[:middle], rows[middle:]) if half)

    def _check_halves(self, failed: Rows) -> None:
        """Once both halves have failed, asks for single rows: the halves are the first two trials."""
        if failed not in self._halves:
            return
        self._halves.remove(failed)
        if not self._halves:
            whole = sorted(row for part in self.open for row in part)
            spread = (len(whole) * (2 * number + 1) // (2 * _SAMPLES) for number in range(_SAMPLES))
            self._samples = deque((whole[place],) for place in spread)

    def _sampled(self, failed: bool) -> None:
        self._samples.popleft()
        if not failed:
            self._samples.clear()
        elif not self._samples:
            self.gave_up = True
