"""Rows to vectors: read and prepared on threads ahead of the model, batched by cost, put back in order."""

import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from traceback import clear_frames
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.encoders.base import Encoder, Vectors
from barycenter.fusion.encoders.prefetch import NumberedRows, Prefetcher, PrefetchThreads, PreparedChunk
from barycenter.fusion.errors import Reason


@dataclass(slots=True)
class EmbeddingResult:
    """What came of n rows.

    Attributes:
        vectors: (n, dim) float32, zeros where not ``ok``.
        ok: (n,) whether the row was encoded.
        reasons: A fixed word for each row that was not, else None.
        details: What the library said about it.
        seconds: ``read``, ``prepare`` and ``model``, each summed over its threads; ``waiting``: those of the model had
            no prepared rows.
        batch_size: Batch size in use at the end; smaller than asked where the device ran out of memory.
    """

    vectors: Vectors
    ok: NDArray[np.bool_]
    reasons: list[str | None]
    details: list[str | None]
    seconds: dict[str, float]
    batch_size: int

    @staticmethod
    def empty(n: int, dim: int, batch_size: int = 0) -> "EmbeddingResult":
        """Of n rows of which none is encoded yet."""
        vectors, ok = np.zeros((n, dim), np.float32), np.zeros(n, np.bool_)
        return EmbeddingResult(vectors, ok, [None] * n, [None] * n, {}, batch_size)


class Pipeline:
    """An encoder with the threads that read and prepare its rows, and those that run its model.

    An encoder that may be launched from several threads (a model on a CPU) is launched from ``threads`` of them, a
    batch on each, and what torch computes for a batch stays on its thread: threads that share an operator wait for each
    other at every layer, so that one that has lost its core to a decoder holds up all, and how torch divides an
    operator among threads would show in the vectors' last bits. Others are launched from one thread; how many torch
    uses then is left as it is set.

    Args:
        encoder: A loaded encoder.
        threads: Threads that prepare; on a CPU also those that run the model.
        model_threads: Threads that run the model, where they are to be fewer.
    """

    def __init__(self, encoder: Encoder, threads: int, model_threads: int | None = None) -> None:
        self.encoder = encoder
        self.model_threads = model_threads or (max(threads, 1) if encoder.parallel else 1)
        self._threads = PrefetchThreads(encoder, max(threads, 1))
        self._model = ThreadPoolExecutor(
            self.model_threads,
            thread_name_prefix="model",
            initializer=_use_one_torch_thread if encoder.parallel else None,
        )
        self._feeding = threading.Lock()
        self._torch = sys.modules.get("torch") if encoder.parallel else None
        self._torch_threads = self._torch.get_num_threads() if self._torch else 0

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.close()
        self._model.shutdown(wait=True, cancel_futures=True)
        if self._torch:
            self._torch.set_num_threads(self._torch_threads)  # later threads take over what was set last

    def embed(self, values: Sequence[object], *, batch_size: int) -> EmbeddingResult:
        """Encodes values with reading, preparing and the model overlapped.

        Rows are prepared in windows; within a window they are sorted by cost, longest first, and cut into batches whose
        padded cost stays within ``batch_size``. The same values, batch size and device give the same batches,
        whatever the threads, unless memory runs out. Memory holds about three windows of prepared rows and two batches
        a thread of the model beside the vectors, for each call.

        Calls may overlap: one reads and prepares ahead while another has the model, and its batches follow at once.

        Args:
            values: n raw values, or callables without arguments that read one (run on reading threads).
            batch_size: Tokens (text) or rows (others) a batch may hold.

        Raises:
            Exception: Whatever a value's callable raises except BadInputError: the storage failed, not the row.
            torch.OutOfMemoryError: A single row does not fit the device.
        """
        result = EmbeddingResult.empty(len(values), self.encoder.dim, batch_size)
        result.seconds = dict.fromkeys(("read", "prepare", "model", "waiting"), 0.0)
        prefetcher = Prefetcher(self._threads, values, max(self.encoder.window_rows(batch_size), 1))
        call = _EmbedCall(self, result)
        try:
            with self._feeding:
                call.feed(prefetcher)
            call.finish()
        finally:
            prefetcher.close()
            call.close()
        return result

    def launch(self, batch: Sequence[Any]) -> "Future[_LaunchResult]":
        """Runs the model on a batch on one of its threads."""
        return self._model.submit(_launch, self.encoder, batch)


def embed(encoder: Encoder, values: Sequence[object], *, batch_size: int, threads: int) -> EmbeddingResult:
    """Encodes values once, as :meth:`Pipeline.embed`, on threads that end with it."""
    with Pipeline(encoder, threads) as pipeline:
        return pipeline.embed(values, batch_size=batch_size)


def _use_one_torch_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@dataclass(slots=True)
class _LaunchResult:
    value: Any
    seconds: float


def _launch(encoder: Encoder, batch: Sequence[Any]) -> _LaunchResult:
    start = time.perf_counter()
    try:
        value = encoder.launch(batch)
    except RuntimeError as error:
        clear_frames(error.__traceback__)  # they hold what the failed batch had on the device
        raise
    return _LaunchResult(value, time.perf_counter() - start)


class _EmbedCall:
    """One call's batches on their way through the model, two for each of its threads at a time."""

    def __init__(self, pipeline: Pipeline, result: EmbeddingResult) -> None:
        self._pipeline, self._encoder, self._result = pipeline, pipeline.encoder, result
        self._batches: deque[NumberedRows] = deque()
        self._launched: deque[tuple[NumberedRows, Future[_LaunchResult]]] = deque()

    def feed(self, prefetcher: Prefetcher) -> None:
        """Launches everything; the last batches are still under way when it returns."""
        while (chunks := prefetcher.next_window(self._collect_until)) is not None:
            for chunk in chunks:
                self._record(chunk)
            self._add_batches([row for chunk in chunks for row in chunk.rows])
            while self._batches:
                self._launch_or_collect()

    def finish(self) -> None:
        """Brings in what is under way."""
        while self._batches or self._launched:
            self._launch_or_collect()

    def close(self) -> None:
        """After a failure: drops what has not begun and waits for the rest."""
        wait([future for _, future in self._launched if not future.cancel()])

    def _collect_until(self, chunk: "Future[PreparedChunk]") -> None:
        """Brings in batches until a chunk is prepared; with none left, the model waits."""
        while self._launched and not chunk.done():
            self._collect()
        before = time.perf_counter()
        wait([chunk])
        self._result.seconds["waiting"] += (time.perf_counter() - before) * self._pipeline.model_threads

    def _record(self, chunk: PreparedChunk) -> None:
        for row, error in chunk.errors:
            self._result.reasons[row], self._result.details[row] = str(error.reason), error.detail
        self._result.seconds["read"] += chunk.read
        self._result.seconds["prepare"] += chunk.prepare

    def _add_batches(self, rows: NumberedRows) -> None:
        rows = sorted(rows, key=lambda row: self._encoder.cost(row[1]), reverse=True)
        while rows:
            count = rows_that_fit(self._encoder.cost(rows[0][1]), self._result.batch_size, len(rows))
            count = min(max(count, self._encoder.least_rows), len(rows))
            self._batches.append(rows[:count])
            rows = rows[count:]

    def _launch_or_collect(self) -> None:
        """Launches the next batch, or waits for the one launched first where none is left or enough are under way."""
        if self._batches and len(self._launched) < 2 * self._pipeline.model_threads:
            batch = self._batches.popleft()
            self._launched.append((batch, self._pipeline.launch([prepared for _, prepared in batch])))
        else:
            self._collect()

    def _collect(self) -> None:
        """Brings in the batch launched first; one that the device had no memory for is cut in two if it can be."""
        batch, future = self._launched.popleft()
        try:
            launched = future.result()
        except RuntimeError as error:
            if len(batch) <= self._encoder.least_rows or not out_of_memory(error):
                raise
            self._split(batch)
            return
        start = time.perf_counter()
        self._store([row for row, _ in batch], self._encoder.fetch(launched.value))
        self._result.seconds["model"] += launched.seconds + time.perf_counter() - start

    def _store(self, rows: list[int], vectors: Vectors) -> None:
        """Notes a batch's vectors; one with a value that is not finite is a bad input, with a reason."""
        finite = np.asarray(np.isfinite(vectors).all(axis=1))
        self._result.vectors[rows] = np.where(finite[:, None], vectors, np.float32(0))
        self._result.ok[rows] = finite
        for place in np.flatnonzero(~finite).tolist():
            self._result.reasons[rows[place]] = str(Reason.NOT_FINITE)
            self._result.details[rows[place]] = "the encoder gives NaN or infinite values for it"

    def _split(self, batch: NumberedRows) -> None:
        size = max(self._encoder.cost(prepared) for _, prepared in batch) * len(batch)
        if size <= self._result.batch_size:
            self._result.batch_size = max(size // 2, 1)
        again = [batch, *self._batches]
        self._batches.clear()
        self._add_batches([row for each in again for row in each])


def out_of_memory(error: RuntimeError) -> bool:
    """Whether torch had no memory left on its device; what its cache still holds is then given back."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


def rows_that_fit(largest: int, batch_size: int, available: int) -> int:
    """Rows whose padded cost stays within the batch, at least one.

    >>> rows_that_fit(largest=10, batch_size=64, available=100), rows_that_fit(largest=100, batch_size=64, available=5)
    (6, 1)
    """
    return max(1, min(available, batch_size // max(largest, 1)))
