"""Rows to vectors: read and prepared on threads ahead of the model, batched by cost, put back in order."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.encoders.base import Encoder, Vectors
from fusion.errors import BadInputError

_CHUNK = 64
_READERS = 8


@dataclass(slots=True)
class Embedded:
    """What came of n rows.

    Attributes:
        vectors: (n, dim) float32, zeros where not ``ok``.
        ok: (n,) whether the row was encoded.
        reasons: A fixed word for each row that was not, else None.
        details: What the library said about it.
        seconds: ``read`` and ``prepare`` summed over threads; ``model`` and ``waiting`` (the model had no prepared
            rows) of the calling thread.
        batch: Batch size in use at the end; smaller than asked where the device ran out of memory.
    """

    vectors: Vectors
    ok: NDArray[np.bool_]
    reasons: list[str | None]
    details: list[str | None]
    seconds: dict[str, float]
    batch: int


@dataclass(slots=True)
class _Chunk:
    rows: list[int]
    prepared: list[Any]
    errors: list[tuple[int, BadInputError]]
    read: float
    prepare: float


def embed(encoder: Encoder, values: Sequence[object], *, batch: int, threads: int) -> Embedded:
    """Encodes values with reading and preparing overlapped with the model.

    Rows are prepared in windows; within a window they are sorted by cost, longest first, and cut into batches whose
    padded cost stays within ``batch``. The same values, batch size and device give the same batches, whatever the
    threads. Memory holds at most two windows of prepared rows beside the vectors.

    Calls may overlap: each reads and prepares ahead while another one has the model.

    Args:
        encoder: A loaded encoder.
        values: n raw values, or callables without arguments that read one (run on reading threads).
        batch: Tokens (text) or rows (others) a batch may hold.
        threads: Preparing threads.

    Returns:
        Vectors, and what was wrong with the rows that have none.

    Raises:
        Exception: Whatever a value's callable raises except BadInputError: a failure of the storage, not of the row.
        torch.OutOfMemoryError: A single row does not fit the device.
    """
    result = Embedded(
        np.zeros((len(values), encoder.dim), np.float32),
        np.zeros(len(values), np.bool_),
        [None] * len(values),
        [None] * len(values),
        {"read": 0.0, "prepare": 0.0, "model": 0.0, "waiting": 0.0},
        batch,
    )
    run = _Run(encoder, result)
    ahead = _Ahead(encoder, values, result, max(threads, 1))
    try:
        with encoder.turns.model:
            for rows, prepared in ahead.windows():
                with encoder.turns.busy() if encoder.shares_cpu else nullcontext():
                    run.window(rows, prepared)
            run.flush()
    finally:
        ahead.close()
    return result


class _Ahead:
    """Reads and prepares rows on threads, at most two windows before they are asked for."""

    def __init__(self, encoder: Encoder, values: Sequence[object], result: Embedded, threads: int) -> None:
        self._encoder, self._values, self._result = encoder, values, result
        self._window = max(encoder.window(result.batch), 1)
        size = max(1, min(_CHUNK, self._window // (8 * threads)))
        self._spans = iter(
            [
                (first, min(first + size, last_of_window))
                for start in range(0, len(values), self._window)
                for last_of_window in [min(start + self._window, len(values))]
                for first in range(start, last_of_window, size)
            ]
        )
        self._most = 2 * -(-self._window // size) + threads
        self._waiting: deque[tuple[int, Future[_Chunk]]] = deque()
        self._preparers = ThreadPoolExecutor(threads, thread_name_prefix="prepare")
        self._readers = ThreadPoolExecutor(max(_READERS, threads), thread_name_prefix="read")
        self._refill()

    def windows(self) -> Iterator[tuple[list[int], list[Any]]]:
        """Yields windows of good rows in order while the threads work on the next one."""
        rows: list[int] = []
        prepared: list[Any] = []
        while self._waiting:
            end, future = self._waiting.popleft()
            before = time.perf_counter()
            chunk = future.result()
            self._result.seconds["waiting"] += time.perf_counter() - before
            _note(self._result, chunk)
            rows += chunk.rows
            prepared += chunk.prepared
            self._refill()
            if end % self._window == 0 or end == len(self._values):
                yield rows, prepared
                rows, prepared = [], []

    def close(self) -> None:
        """Waits for what the threads are at and drops the rest."""
        for pool in (self._readers, self._preparers):
            pool.shutdown(wait=True, cancel_futures=True)

    def _refill(self) -> None:
        while len(self._waiting) < self._most and (span := next(self._spans, None)) is not None:
            first, last = span
            values = self._values[first:last]
            reading = self._readers.submit(_read, values) if any(map(callable, values)) else None
            self._waiting.append((last, self._preparers.submit(_prepare, self._encoder, first, reading or values)))


@dataclass(slots=True)
class _Values:
    """What was read for some rows, or why it could not be, and the seconds it took."""

    values: list[object]
    seconds: float


def _read(values: Sequence[object]) -> _Values:
    start = time.perf_counter()
    read: list[object] = []
    for value in values:
        try:
            read.append(value() if callable(value) else value)
        except BadInputError as error:
            read.append(error)
    return _Values(read, time.perf_counter() - start)


def _prepare(encoder: Encoder, first: int, source: "Sequence[object] | Future[_Values]") -> _Chunk:
    read = source.result() if isinstance(source, Future) else _Values(list(source), 0.0)
    chunk = _Chunk([], [], [], read.seconds, 0.0)
    for row, value in enumerate(read.values, first):
        encoder.turns.wait_for_idle()
        start = time.perf_counter()
        try:
            if isinstance(value, BadInputError):
                raise value
            chunk.prepared.append(encoder.prepare(value))
            chunk.rows.append(row)
        except BadInputError as error:
            chunk.errors.append((row, error))
        chunk.prepare += time.perf_counter() - start
    return chunk


def prepare(encoder: Encoder, values: Sequence[object]) -> list[Any]:
    """Reads and prepares values here and now; bad ones are left out."""
    return _prepare(encoder, 0, _read(values).values).prepared


def _note(result: Embedded, chunk: _Chunk) -> None:
    for row, error in chunk.errors:
        result.reasons[row], result.details[row] = str(error.reason), error.detail
    result.seconds["read"] += chunk.read
    result.seconds["prepare"] += chunk.prepare


class _Run:
    """Feeds batches to the model, one launched while the one before is fetched."""

    def __init__(self, encoder: Encoder, result: Embedded) -> None:
        self._encoder = encoder
        self._result = result
        self._launched: tuple[list[int], Any] | None = None

    def window(self, rows: list[int], prepared: list[Any]) -> None:
        costs = [self._encoder.cost(item) for item in prepared]
        queue = deque(sorted(range(len(rows)), key=lambda i: (-costs[i], i)))
        while queue:
            count = fitting(costs[queue[0]], self._result.batch, len(queue))
            chosen = [queue.popleft() for _ in range(count)]
            if not self._launch([rows[i] for i in chosen], [prepared[i] for i in chosen]):
                self._result.batch = max(min(self._result.batch, costs[chosen[0]] * count) // 2, 1)
                queue.extendleft(reversed(chosen))

    def _launch(self, rows: list[int], batch: list[Any]) -> bool:
        """Starts one batch; False when the device has no memory for it."""
        start = time.perf_counter()
        try:
            launched = self._encoder.launch(batch)
        except RuntimeError as error:
            if len(batch) == 1 or not out_of_memory(error):
                raise
            self.flush()
            return False
        self._result.seconds["model"] += time.perf_counter() - start
        self.flush()
        self._launched = (rows, launched)
        return True

    def flush(self) -> None:
        """Brings in the batch that is under way."""
        if self._launched is None:
            return
        rows, launched = self._launched
        self._launched = None
        start = time.perf_counter()
        self._result.vectors[rows] = self._encoder.fetch(launched)
        self._result.ok[rows] = True
        self._result.seconds["model"] += time.perf_counter() - start


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch had no memory left on its device; what its cache still holds is then given back."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


def fitting(largest: int, batch: int, available: int) -> int:
    """Rows whose padded cost stays within the batch, at least one.

    >>> fitting(largest=10, batch=64, available=100), fitting(largest=100, batch=64, available=5)
    (6, 1)
    """
    return max(1, min(available, batch // max(largest, 1)))
