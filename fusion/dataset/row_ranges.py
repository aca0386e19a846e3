"""Who reads which rows: a line of row groups cut into ranks, workers, blocks and batches, by arithmetic alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Even = Literal["drop", "pad", "none"]


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows ``start`` to ``stop`` of one row group."""

    row_group: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


def rank_range(total: int, rank: int, world_size: int, even: Even) -> tuple[int, int]:
    """Positions on the line that a rank reads; beyond ``total`` they start again at 0.

    ``drop`` leaves out fewer than ``world_size`` rows, ``pad`` repeats fewer, ``none`` gives ranks that differ by one.

    >>> [rank_range(10, rank, 4, "drop") for rank in range(4)]
    [(0, 2), (2, 4), (4, 6), (6, 8)]
    >>> [rank_range(10, rank, 4, "pad") for rank in range(4)]
    [(0, 3), (3, 6), (6, 9), (9, 12)]
    """
    if even == "none":
        return rank * total // world_size, (rank + 1) * total // world_size
    rows = total // world_size if even == "drop" else -(-total // world_size)
    return rank * rows, (rank + 1) * rows


def worker_range(start: int, stop: int, worker: int, workers: int, batch_size: int) -> tuple[int, int]:
    """The part of a rank's positions that one of its workers reads: whole batches, so only the rank's last is short.

    >>> [worker_range(0, 10, worker, 2, 4) for worker in range(2)]
    [(0, 4), (4, 10)]
    """
    batches = -(-(stop - start) // batch_size)
    first, last = worker * batches // workers, (worker + 1) * batches // workers
    return min(start + first * batch_size, stop), min(start + last * batch_size, stop)


class RowGroupSequence:
    """Row groups one after another, in file order or shuffled.

    Args:
        rows: (u,) rows of each row group, none of them 0.
        seed: Entropy of the order; None keeps the order of the files.
    """

    def __init__(self, rows: NDArray[np.int64], seed: tuple[int, ...] | None) -> None:
        self._order = np.arange(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
        self._ends = np.cumsum(rows[self._order])
        self.total = int(rows.sum())

    def row_ranges(self, start: int, stop: int) -> Iterator[RowRange]:
        """What to read for positions ``start`` to ``stop``, in order, wrapping at the end of the line."""
        while start < stop:
            at = start % self.total
            upto = min(self.total, at + stop - start)
            start += upto - at
            place = int(np.searchsorted(self._ends, at, side="right"))
            while at < upto:
                end = int(self._ends[place])
                first = int(self._ends[place - 1]) if place else 0
                taken = min(end, upto)
                yield RowRange(int(self._order[place]), at - first, taken - first)
                at, place = taken, place + 1
