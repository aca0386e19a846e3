"""Blocks of shards whose moments are gathered in one go; moments that are kept, known by the content of their rows.

The rule is fixed: consecutive shards in blocks of :data:`BLOCK_ROWS` rows; in a block, updates of :data:`UPDATE_ROWS`
rows one after the other; the blocks' moments merged one after the other. The state is float64 and saved exactly, so to
go on from what was kept gives the bytes of one pass.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from barycenter.fusion.moments import FoldMoments
from barycenter.infra.corpus import Shard
from barycenter.infra.storage import Storage
from barycenter.tasks.data.rows import Rows, regroup
from barycenter.tasks.run.digest import digest

BLOCK_ROWS = 65_536
UPDATE_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive shards to be read; plain data that travels to workers.

    Attributes:
        shards: The shards.
        base: File of the moments of the block's shards before these, if any.
        keep: After so many of the shards the moments are written to that file, for a run with more rows.
    """

    shards: tuple[Shard, ...]
    base: str | None = None
    keep: tuple[int, str] | None = None

    @property
    def rows(self) -> int:
        """Rows to be read."""
        return sum(shard.rows for shard in self.shards)


def updates(parts: Iterable[Rows]) -> Iterator[Rows]:
    """The rows of a block, of shard after shard, in the updates that its moments are made of."""
    return regroup(parts, UPDATE_ROWS)


def ends_of_updates(shards: Sequence[Shard]) -> list[int]:
    """Numbers of shards, from the first one, after which an update ends however many follow."""
    ends, held = [], 0
    for number, shard in enumerate(shards, start=1):
        held += shard.rows
        if held >= UPDATE_ROWS:
            ends.append(number)
            held = 0
    return ends


def write_moments(storage: Storage, path: str, moments: FoldMoments) -> None:
    """Writes one safetensors file."""
    with tempfile.TemporaryDirectory() as folder:
        moments.save(Path(folder) / "moments")
        storage.write(path, (Path(folder) / "moments").read_bytes())


def read_moments(storage: Storage, path: str) -> FoldMoments:
    """Reads what :func:`write_moments` wrote."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "moments").write_bytes(storage.read(path))
        return FoldMoments.load(Path(folder) / "moments")


class KeptMoments:
    """The moments that a run finds kept, and those that it keeps for the next.

    Kept are the moments of the last block, those of its whole updates, and those of all blocks before it together;
    and, for a corpus that changes near its end, of as many blocks as the binary digits of their number leave when the
    last ones are cleared: of 13 blocks, then, those of the first 12 and of the first 8.

    Args:
        storage: The output.
        folder: Of moments that depend on the same things, but for the rows.
        marks: What the moments of each shard depend on, by block.
    """

    def __init__(self, storage: Storage, folder: str, marks: Sequence[Sequence[str]]) -> None:
        self._storage, self._folder, self._marks = storage, folder, marks
        self._there = set(storage.list(folder))
        names = accumulate(marks, lambda before, block: digest("blocks", before, block), initial="")
        self._first = [self._path(name) for name in names][1:]  # of the first block, of the first two, and so on
        self._counts = set(counts_kept(len(marks) - 1))
        self._wanted = {self._first[count - 1] for count in self._counts}

    def longest(self) -> tuple[int, FoldMoments | None]:
        """The most blocks, from the first one but without the last, whose moments are kept; and those."""
        for count in range(len(self._marks) - 1, 0, -1):
            if self._first[count - 1] in self._there:
                return count, read_moments(self._storage, self._first[count - 1])
        return 0, None

    def block(self, number: int) -> FoldMoments | None:
        """The moments of a block, if they are kept."""
        path = self._block(number)
        return read_moments(self._storage, path) if path in self._there else None

    def rest(self, number: int, shards: Sequence[Shard]) -> Block:
        """What is to be read of a block."""
        ends = ends_of_updates(shards)
        known = next((end for end in reversed(ends) if self._block(number, end) in self._there), 0)
        keep = None
        if number == len(self._marks) - 1 and ends and known < ends[-1] < len(shards):
            keep = (ends[-1] - known, self._block(number, ends[-1]))
        return Block(tuple(shards[known:]), self._block(number, known) if known else None, keep)

    def keep(self, count: int, block: FoldMoments, first: FoldMoments) -> None:
        """Keeps the moments of the ``count``-th block and those of all up to it, as far as they will be of use."""
        if count == len(self._marks):
            self._write(self._block(count - 1), block)
        elif count in self._counts:
            self._write(self._first[count - 1], first)

    def remove_others(self, shards: Sequence[Shard]) -> None:
        """Removes what was kept of other rows, now that the moments of these, ``shards`` the last block, are."""
        last = len(self._marks) - 1
        ends = ends_of_updates(shards)
        wanted = {*self._wanted, self._block(last), *(self._block(last, end) for end in ends[-1:])}
        self._storage.remove([path for path in self._storage.list(self._folder) if path not in wanted])

    def _write(self, path: str, moments: FoldMoments) -> None:
        if path not in self._there:
            write_moments(self._storage, path, moments)

    def _block(self, number: int, shards: int | None = None) -> str:
        """The file of a block, or of its first shards."""
        return self._path(digest("block", self._marks[number][:shards]))

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}.safetensors"


def counts_kept(blocks: int) -> list[int]:
    """Numbers of blocks, from the first one, whose moments are kept together.

    What a longer corpus keeps of these, a shorter one has kept, too.

    >>> counts_kept(13), counts_kept(14)
    ([13, 12, 8], [14, 12, 8])
    """
    counts = []
    while blocks > 0:
        counts.append(blocks)
        blocks &= blocks - 1
    return counts


class OrderedMerge:
    """Merges the moments of blocks one after the other, in whichever order they arrive, and holds none that is merged.

    Args:
        merged: How many blocks are merged already.
        whole: Their moments.
        on_merged: Called after each block with how many are merged, the moments of the block and those of all.
    """

    def __init__(
        self,
        merged: int = 0,
        whole: FoldMoments | None = None,
        on_merged: Callable[[int, FoldMoments, FoldMoments], None] = lambda *_: None,
    ) -> None:
        self._merged, self._whole, self._on_merged = merged, whole, on_merged
        self._waiting: dict[int, FoldMoments] = {}

    @property
    def whole(self) -> FoldMoments:
        """The moments of all blocks."""
        assert self._whole is not None
        return self._whole

    def add(self, number: int, part: FoldMoments) -> None:
        """Takes the moments of block ``number``, from 0."""
        self._waiting[number] = part
        while (following := self._waiting.pop(self._merged, None)) is not None:
            self._whole = following if self._whole is None else self._whole.merge(following)
            self._merged += 1
            self._on_merged(self._merged, following, self._whole)
