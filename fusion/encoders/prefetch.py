"""Values to prepared rows, on threads, a bounded number of them ahead of who reads them."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from barycenter.fusion.encoders.base import Encoder
from barycenter.fusion.errors import BadInputError

_CHUNK = 64
_READERS = 8

NumberedRows = list[tuple[int, Any]]
"""Numbers of rows, each with what the encoder made of it."""


@dataclass(slots=True)
class PreparedChunk:
    """Neighboring rows, prepared.

    Attributes:
        rows: The good ones.
        errors: Numbers of the bad ones, and why.
        read: Seconds of reading.
        prepare: Seconds of preparing.
    """

    rows: NumberedRows
    errors: list[tuple[int, BadInputError]]
    read: float
    prepare: float


_ReadValues = tuple[list[object], float]
"""What was read for some rows, or why it could not be, and the seconds it took."""


@dataclass(slots=True)
class _Pending:
    stop: int
    read_future: "Future[_ReadValues] | None"
    prepared_future: "Future[PreparedChunk]"


class PrefetchThreads:
    """Threads that read, which wait for storage, and threads that prepare, which compute.

    Args:
        encoder: Whose rows are prepared.
        threads: How many prepare.
    """

    def __init__(self, encoder: Encoder, threads: int) -> None:
        self.encoder, self.threads = encoder, threads
        self.readers = ThreadPoolExecutor(max(_READERS, threads), thread_name_prefix="read")
        self.preparers = ThreadPoolExecutor(threads, thread_name_prefix="prepare")

    def close(self) -> None:
        """Waits for what the threads are at and drops the rest."""
        for pool in (self.readers, self.preparers):
            pool.shutdown(wait=True, cancel_futures=True)


class Prefetcher:
    """Prepared rows in order, read and prepared at most two windows before they are asked for.

    Args:
        threads: Who does it.
        values: n raw values, or callables without arguments that read one.
        window: Rows that are asked for together.
    """

    def __init__(self, threads: PrefetchThreads, values: Sequence[object], window: int) -> None:
        self._threads, self._values, self._window = threads, values, window
        size = max(1, min(_CHUNK, window // (8 * threads.threads)))
        self._row_ranges = iter(
            [
                (first, min(first + size, last_of_window))
                for start in range(0, len(values), window)
                for last_of_window in [min(start + window, len(values))]
                for first in range(start, last_of_window, size)
            ]
        )
        self._max_pending = 2 * -(-window // size) + threads.threads
        self._pending: deque[_Pending] = deque()
        self._refill()

    def next_window(self, while_waiting: Callable[[Future[PreparedChunk]], None]) -> list[PreparedChunk] | None:
        """The next window's rows, or None after the last.

        Args:
            while_waiting: Called with a chunk that may not be done yet, before it is waited for.

        Raises:
            Exception: Whatever a value's callable raises except BadInputError.
        """
        chunks: list[PreparedChunk] = []
        while self._pending:
            pending = self._pending.popleft()
            while_waiting(pending.prepared_future)
            chunks.append(pending.prepared_future.result())
            self._refill()
            if pending.stop % self._window == 0:
                break
        return chunks or None

    def close(self) -> None:
        """Drops what was not asked for and waits for what the threads are at."""
        futures: list[Future[Any]] = [pending.prepared_future for pending in self._pending]
        futures += [pending.read_future for pending in self._pending if pending.read_future is not None]
        wait([future for future in futures if not future.cancel()])

    def _refill(self) -> None:
        while len(self._pending) < self._max_pending and (row_range := next(self._row_ranges, None)) is not None:
            first, last = row_range
            values = self._values[first:last]
            read_future = self._threads.readers.submit(_read, values) if any(map(callable, values)) else None
            source = read_future or (list(values), 0.0)
            prepared_future = self._threads.preparers.submit(_prepare, self._threads.encoder, first, source)
            self._pending.append(_Pending(last, read_future, prepared_future))


def _read(values: Sequence[object]) -> _ReadValues:
    start = time.perf_counter()
    read: list[object] = []
    for value in values:
        try:
            read.append(value() if callable(value) else value)
        except BadInputError as error:
            read.append(error)
    return read, time.perf_counter() - start


def _prepare(encoder: Encoder, first: int, source: "_ReadValues | Future[_ReadValues]") -> PreparedChunk:
    values, seconds = source.result() if isinstance(source, Future) else source
    chunk = PreparedChunk([], [], seconds, 0.0)
    start = time.perf_counter()
    for row, value in enumerate(values, first):
        try:
            if isinstance(value, BadInputError):
                raise value
            chunk.rows.append((row, encoder.prepare(value)))
        except BadInputError as error:
            chunk.errors.append((row, error))
    chunk.prepare = time.perf_counter() - start
    return chunk


def prepare(encoder: Encoder, values: Sequence[object]) -> list[Any]:
    """Reads and prepares values here and now; bad ones are left out."""
    return [prepared for _, prepared in _prepare(encoder, 0, _read(values)).rows]
