"""Fused features as torch datasets: whole row groups, shuffled, sharded over ranks and workers, resumable.

    from torch.utils.data import DataLoader
    dataset = FusedDataset("out/emoji", columns=["fused", "label"], batch_size=1024, shuffle=True)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for batch in DataLoader(dataset, batch_size=None, num_workers=2):
            batch["fused"], batch["label"]

Other libraries read the same files: ``datasets.load_dataset("parquet", data_files=dataset.files)``,
``ray.data.read_parquet(dataset.files)``, ``duckdb.from_arrow(dataset.arrow())``,
``polars.scan_pyarrow_dataset(dataset.arrow())``.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from barycenter.fusion.dataset.batches import (
    Arrays,
    Batch,
    batch_columns,
    empty_arrays,
    rebatch,
    shuffle_block,
    to_arrays,
    to_batch,
)
from barycenter.fusion.dataset.reader import FeatureReader, Filter
from barycenter.fusion.dataset.row_ranges import Even, RowGroupSequence, RowRange, rank_range, worker_range
from barycenter.fusion.dataset.schema import Manifest

_EVEN_OPTIONS = ("drop", "pad", "none")


class FusedDataset(IterableDataset[Batch]):
    """Batches of a fused data set: ``{"key": [...], "fused": (b, dim) tensor, "has": {input: (b,) bool}, ...}``.

    Numeric kept columns are tensors (null as NaN), others lists; so are whole numbers that would lose digits: above
    2^63, or above 2^53 in a column with nulls. A rank reads a run of row groups, its workers parts
    of that; a row group on a border is read by both and divided. With ``shuffle``, row groups are put in a random
    order and rows are permuted inside blocks of ``buffer`` rows; the order depends on seed, epoch, rank and worker
    alone.

    Args:
        source: Output folder or manifest file, local or a URI such as ``s3://bucket/out``.
        columns: Columns to read; ``has`` and ``aligned`` name all of theirs. None: all but aligned vectors.
        batch_size: Rows of a batch; only the last of a rank may be shorter.
        shuffle: Whether to shuffle.
        buffer: Rows shuffled together, rounded up to whole batches; one block is held in memory.
        seed: Of the order.
        rank: Of this process; None takes it from ``torch.distributed``, else 0.
        world_size: Number of processes, likewise.
        even: Every rank the same number of rows, hence batches: ``drop`` leaves out fewer than ``world_size`` rows,
            ``pad`` repeats fewer; ``none`` does neither.
        filter: Rows to read, as a pyarrow expression or ``[(column, operator, value), ...]``; files and row groups
            that cannot match are not read.
        version: Number or hash of a version; None is the newest.
        filesystem: pyarrow or fsspec filesystem of ``source``; None takes it from the URI. With DataLoader workers on
            object storage use ``multiprocessing_context="spawn"``.

    Raises:
        RunError: If nothing is committed there, or a file is missing or not as listed.
        TypeError: If ``columns`` is a single name.
        ValueError: On unknown columns and values out of range.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        columns: Sequence[str] | None = None,
        batch_size: int = 1024,
        shuffle: bool = False,
        buffer: int = 65_536,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        even: Even = "drop",
        filter: Filter = None,
        version: int | str | None = None,
        filesystem: Any = None,
    ) -> None:
        if isinstance(columns, str):
            raise TypeError(f"columns must be a list of names, not {columns!r}; write [{columns!r}]")
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if world_size is None:
            world_size = torch.distributed.get_world_size() if distributed else 1
        self.world_size = world_size
        self.rank = rank if rank is not None else (torch.distributed.get_rank() if distributed else 0)
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank {self.rank} is not within a world of {self.world_size}")
        if batch_size < 1 or buffer < 1:
            raise ValueError(f"batch_size ({batch_size}) and buffer ({buffer}) must be at least 1")
        if even not in _EVEN_OPTIONS:
            raise ValueError(f"even must be one of {', '.join(_EVEN_OPTIONS)}, not {even!r}")
        self.batch_size, self.shuffle, self.seed, self.even = batch_size, shuffle, seed, even
        self._block_rows = -(-buffer // batch_size) * batch_size
        self._reader = FeatureReader(source, version, filesystem, filter)
        self._columns = batch_columns(self.manifest, self._reader.schema, self._reader.bounds, columns)
        # The epoch, and whether it was set: workers see both.
        self._epoch = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._resume_state: dict[str, Any] | None = None
        self._batches_delivered = 0
        self._running_epoch = self.epoch
        self._epoch_ended = True

    @property
    def manifest(self) -> Manifest:
        """The manifest that is read."""
        return self._reader.manifest

    @property
    def files(self) -> list[str]:
        """Paths of the feature files on their filesystem; the filter is not applied."""
        return [self._reader.path(file) for file in self._reader.files]

    @property
    def rows(self) -> int:
        """Rows that pass the filter, over all ranks."""
        return self._reader.rows

    def arrow(self) -> pads.FileSystemDataset:
        """The files as a pyarrow dataset, partition columns included; the filter is not applied."""
        return self._reader.arrow()

    def __len__(self) -> int:
        """Batches that this rank reads in an epoch, whatever the number of workers."""
        start, stop = rank_range(self.rows, self.rank, self.world_size, self.even)
        return -(-(stop - start) // self.batch_size)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch; workers that are already there see it at their next iteration."""
        if self._resume_state is not None and self._resume_state["epoch"] != epoch:
            self._resume_state = None
        self._epoch[0], self._epoch[1] = epoch, 1

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        start, self._resume_state = self._resume_state, None
        self._batches_delivered = 0
        if start is not None:
            if start["workers"] != workers:
                raise ValueError(f"the saved state has {start['workers']} workers, this loader {workers}; use as many")
            self._batches_delivered = int(start["batches"])
        self._running_epoch, self._epoch_ended = self.epoch, False
        return self._batches(self._running_epoch, worker, workers, self._batches_delivered, info is None)

    def _worker_positions(self, worker: int, workers: int) -> tuple[int, int]:
        """The positions that a worker reads in an epoch."""
        whole = rank_range(self.rows, self.rank, self.world_size, self.even)
        return worker_range(*whole, worker, workers, self.batch_size)

    def _batches(self, epoch: int, worker: int, workers: int, skip: int, threads: bool) -> Iterator[Batch]:
        sequence = RowGroupSequence(self._reader.row_group_rows, (self.seed, epoch) if self.shuffle else None)
        first, last = self._worker_positions(worker, workers)
        begin = first + skip * self.batch_size
        parts = self._sequential(sequence, begin, last, threads)
        if self.shuffle:
            parts = self._shuffled(sequence, (first, begin, last), (epoch, worker), threads)
        for arrays in parts:
            self._batches_delivered += 1
            yield to_batch(arrays, self._columns)
        self._epoch_ended = True

    def _read(self, row_ranges: Iterator[RowRange], threads: bool) -> Iterator[Arrays]:
        names = [column.name for column in self._columns]
        return (to_arrays(batch, self._columns) for batch in self._reader.scan(row_ranges, names, threads))

    def _sequential(self, sequence: RowGroupSequence, begin: int, last: int, threads: bool) -> Iterator[Arrays]:
        return rebatch(self._read(sequence.row_ranges(begin, last), threads), self.batch_size)

    def _shuffled(
        self, sequence: RowGroupSequence, span: tuple[int, int, int], entropy: tuple[int, int], threads: bool
    ) -> Iterator[Arrays]:
        """Block after block; every block is a run of positions with a random order of its own."""
        first, begin, last = span
        if begin >= last:
            return
        number = (begin - first) // self._block_rows
        at = first + number * self._block_rows
        skip = (begin - at) // self.batch_size
        rows = _RowStream(self._read(sequence.row_ranges(at, last), threads))
        while at < last:
            size = min(self._block_rows, last - at)
            order = np.random.default_rng((self.seed, *entropy, self.rank, number)).permutation(size)
            yield from islice(shuffle_block(rows.take(size), size, self.batch_size, order), skip, None)
            at, number, skip = at + size, number + 1, 0

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a saved position to mean the same rows."""
        return {
            "version": self.manifest.version,
            "filter": None if self._reader.filter is None else str(self._reader.filter),
            "batch_size": self.batch_size,
            "buffer": self._block_rows if self.shuffle else None,
            "seed": self.seed if self.shuffle else None,
            "rank": self.rank,
            "world_size": self.world_size,
            "even": self.even,
        }

    def state_dict(self) -> dict[str, Any]:
        """Where this rank (in a worker: this worker) stands; JSON-ready. torchdata's StatefulDataLoader calls it."""
        info = get_worker_info()
        workers = 1 if info is None else info.num_workers
        if self._resume_state is not None:
            return dict(self._resume_state)
        epoch, batches = self._running_epoch, self._batches_delivered
        if self._epoch_ended and self.epoch != epoch:
            epoch, batches = self.epoch, 0
        return {"epoch": epoch, "batches": batches, "workers": workers, "of": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on after the batches that were delivered when the state was taken.

        A state from the end of an epoch does not hold back one that was set since: loaders hand their state over when
        they begin to iterate, after ``set_epoch``.

        Raises:
            ValueError: If the state is of other data, another order or another rank; names what differs.
        """
        mine = self._identity()
        differing = [name for name, value in mine.items() if state["of"].get(name) != value]
        if differing:
            differences = ", ".join(f"{name} {state['of'].get(name)} there, {mine[name]} here" for name in differing)
            raise ValueError(f"the saved state does not fit this dataset: {differences}")
        epoch, chosen = self._epoch.tolist()
        if chosen and epoch != state["epoch"] and self._is_end(state):
            return
        self._epoch[0] = int(state["epoch"])
        self._resume_state = dict(state)

    def _is_end(self, state: dict[str, Any]) -> bool:
        info = get_worker_info()
        first, last = self._worker_positions(0 if info is None else info.id, int(state["workers"]))
        return int(state["batches"]) * self.batch_size >= last - first


class _RowStream:
    """A stream of arrays from which runs of exactly so many rows are taken."""

    def __init__(self, parts: Iterator[Arrays]) -> None:
        self._parts = parts
        self._rest: Arrays | None = None

    def take(self, rows: int) -> Iterator[Arrays]:
        while rows:
            part = self._rest if self._rest is not None else next(self._parts)
            length = len(next(iter(part.values())))
            self._rest = {name: values[rows:] for name, values in part.items()} if length > rows else None
            yield part if length <= rows else {name: values[:rows] for name, values in part.items()}
            rows -= min(rows, length)


class FusedRows(Dataset[Batch]):
    """The same data by row number, in the order of the files: for samplers, evaluation and data that fit in memory.

    Args:
        source: See :class:`FusedDataset`, as for the others.
        columns: Columns to read.
        filter: Rows to read; row numbers count only those.
        version: Which version.
        filesystem: Of ``source``.
        cached_row_groups: Decoded row groups to hold; random access to more of them reads again.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        columns: Sequence[str] | None = None,
        filter: Filter = None,
        version: int | str | None = None,
        filesystem: Any = None,
        cached_row_groups: int = 256,
    ) -> None:
        self._reader = FeatureReader(source, version, filesystem, filter)
        self._columns = batch_columns(self._reader.manifest, self._reader.schema, self._reader.bounds, columns)
        self._ends = np.cumsum(self._reader.row_group_rows)
        self._cache: OrderedDict[int, Arrays] = OrderedDict()
        self._max_cached = max(1, cached_row_groups)

    def __len__(self) -> int:
        return self._reader.rows

    def read(self) -> Batch:
        """All rows as one batch."""
        return self.take(np.arange(len(self)))

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Some rows, in the order asked for, as one batch.

        Raises:
            IndexError: If a row number is out of range.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"row {wanted.min() if wanted.min() < 0 else wanted.max()} of {len(self)}")
        row_groups = np.searchsorted(self._ends, wanted, side="right")
        result: Arrays = {}
        for row_group in np.unique(row_groups):
            here = np.flatnonzero(row_groups == row_group)
            arrays = self._row_group(int(row_group))
            inside = wanted[here] - (self._ends[row_group] - self._reader.row_group_rows[row_group])
            for name, values in arrays.items():
                if name not in result:
                    result[name] = np.empty((len(wanted), *values.shape[1:]), values.dtype)
                result[name][here] = values[inside]
        return to_batch(result or empty_arrays(self._reader.schema, self._columns), self._columns)

    def __getitem__(self, row: int) -> Batch:
        [found] = self.__getitems__([row + len(self) if row < 0 else row])
        return found

    def __getitems__(self, rows: Sequence[int]) -> list[Batch]:
        """Rows for a DataLoader, which collates them; read together."""
        batch = self.take(rows)
        return [_row(batch, position) for position in range(len(rows))]

    def _row_group(self, row_group: int) -> Arrays:
        if row_group not in self._cache:
            whole = RowRange(row_group, 0, int(self._reader.row_group_rows[row_group]))
            parts = self._reader.scan(iter([whole]), [column.name for column in self._columns], threads=False)
            arrays = next(rebatch((to_arrays(part, self._columns) for part in parts), whole.rows))
            self._cache[row_group] = arrays
            if len(self._cache) > self._max_cached:
                self._cache.popitem(last=False)
        self._cache.move_to_end(row_group)
        return self._cache[row_group]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": OrderedDict()}


def _row(batch: Batch, position: int) -> Batch:
    return {
        name: _row(value, position) if isinstance(value, dict) else value[position] for name, value in batch.items()
    }
