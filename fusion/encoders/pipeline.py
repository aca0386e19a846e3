"""Rows to vectors: read and prepared on threads ahead of the model, batched by cost, put back in order."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.encoders.base import Encoder, Vectors
from fusion.errors import BadInputError

_CHUNK = 64
_MARGIN = 1.03
_PATIENCE = 10.0


@dataclass(slots=True)
class Embedded:
    """What came of n rows.

    Attributes:
        vectors: (n, dim) float32, zeros where not ``ok``.
        ok: (n,) whether the row was encoded.
        reasons: A fixed word for each row that was not, else None.
        details: What the library said about it.
        seconds: ``read`` and ``prepare`` summed over threads; ``model`` and ``wait`` of the calling thread.
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

    Args:
        encoder: A loaded encoder.
        values: n raw values, or callables without arguments that read one (run on the preparing threads).
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
        {"read": 0.0, "prepare": 0.0, "model": 0.0, "wait": 0.0},
        batch,
    )
    run = _Run(encoder, result)
    pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="prepare")
    try:
        for rows, prepared in _windows(encoder, values, result, pool, batch, max(threads, 1)):
            run.window(rows, prepared)
        run.flush()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return result


def _windows(
    encoder: Encoder, values: Sequence[object], result: Embedded, pool: ThreadPoolExecutor, batch: int, threads: int
) -> Iterator[tuple[list[int], list[Any]]]:
    """Yields windows of good rows in order while the threads work on the next one."""
    window = max(encoder.window(batch), 1)
    size = max(1, min(_CHUNK, window // (2 * threads)))
    starts = [
        (first, min(first + size, last_of_window))
        for start in range(0, len(values), window)
        for last_of_window in [min(start + window, len(values))]
        for first in range(start, last_of_window, size)
    ]
    ahead = 2 * -(-window // size) + threads
    waiting: deque[tuple[int, Future[_Chunk]]] = deque()
    upcoming = iter(starts)

    def refill() -> None:
        while len(waiting) < ahead and (span := next(upcoming, None)) is not None:
            waiting.append((span[1], pool.submit(_prepare, encoder, values, *span)))

    rows: list[int] = []
    prepared: list[Any] = []
    refill()
    while waiting:
        end, future = waiting.popleft()
        before = time.perf_counter()
        chunk = future.result()
        result.seconds["wait"] += time.perf_counter() - before
        _note(result, chunk)
        rows += chunk.rows
        prepared += chunk.prepared
        refill()
        if end % window == 0 or end == len(values):
            yield rows, prepared
            rows, prepared = [], []


def _prepare(encoder: Encoder, values: Sequence[object], first: int, last: int) -> _Chunk:
    chunk = _Chunk([], [], [], 0.0, 0.0)
    for row in range(first, last):
        value, start = values[row], time.perf_counter()
        try:
            if callable(value):
                value = value()
                chunk.read += time.perf_counter() - start
                start = time.perf_counter()
            chunk.prepared.append(encoder.prepare(value))
            chunk.rows.append(row)
        except BadInputError as error:
            chunk.errors.append((row, error))
        chunk.prepare += time.perf_counter() - start
    return chunk


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
            count = _fitting(costs[queue[0]], self._result.batch, len(queue))
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
            if len(batch) == 1 or not _out_of_memory(error):
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


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch had no memory left on its device; what its cache still holds is then given back."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


def _fitting(largest: int, batch: int, available: int) -> int:
    """Rows whose padded cost stays within the batch, at least one.

    >>> _fitting(largest=10, batch=64, available=100), _fitting(largest=100, batch=64, available=5)
    (6, 1)
    """
    return max(1, min(available, batch // max(largest, 1)))


def find_batch(encoder: Encoder, sample: Sequence[object]) -> int:
    """Tries the encoder's batch sizes on a sample and returns the fastest.

    Sizes grow until two in a row are slower than the best, the device runs out of memory or ten seconds are spent; of
    sizes within 3 % of the best the smallest is taken. The result depends on the machine: fix it in the plan before the
    first shard.

    Args:
        encoder: A loaded encoder.
        sample: Raw values or callables, as for :func:`embed`; bad ones are skipped.

    Returns:
        Rows (image, vector) or tokens (text) a batch.
    """
    chunk = _prepare(encoder, sample, 0, len(sample))
    if len(encoder.trials) == 1 or not chunk.prepared:
        return encoder.trials[0]
    ordered = sorted(chunk.prepared, key=encoder.cost, reverse=True)
    encoder.encode(ordered[:1])
    rates: dict[int, float] = {}
    start = time.perf_counter()
    for batch in encoder.trials:
        try:
            rates[batch] = _rate(encoder, ordered, batch)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            break
        best = max(rates.values())
        if time.perf_counter() - start > _PATIENCE:
            break
        if len(rates) > 2 and all(rate * _MARGIN < best for rate in list(rates.values())[-2:]):
            break
    if not rates:
        return encoder.trials[0]
    return min(batch for batch, rate in rates.items() if rate * _MARGIN >= max(rates.values()))


def _rate(encoder: Encoder, ordered: list[Any], batch: int) -> float:
    """Cost per second of the quicker of two batches of rows no dearer than the median one."""
    middle = len(ordered) // 2
    typical = ordered[middle:]
    count = _fitting(encoder.cost(typical[0]), batch, batch)
    rows = [typical[i % len(typical)] for i in range(count)]
    quickest = min(_timed(lambda: encoder.encode(rows)) for _ in range(2))
    return sum(encoder.cost(row) for row in rows) / max(quickest, 1e-9)


def _timed(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
