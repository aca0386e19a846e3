"""Rows to vectors: read and prepared on threads ahead of the model, batched by cost, put back in order."""

import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from traceback import clear_frames
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.encoders.base import Encoder, Vectors
from barycenter.fusion.encoders.prefetch import Ahead, Chunk, Threads
from barycenter.fusion.errors import Reason


@dataclass(slots=True)
class Embedded:
    """What came of n rows.

    Attributes:
        vectors: (n, dim) float32, zeros where not ``ok``.
        ok: (n,) whether the row was encoded.
        reasons: A fixed word for each row that was not, else None.
        details: What the library said about it.
        seconds: ``read``, ``prepare`` and ``model``, each summed over its threads; ``waiting``: those of the model had
            no prepared rows.
        batch: Batch size in use at the end; smaller than asked where the device ran out of memory.
    """

    vectors: Vectors
    ok: NDArray[np.bool_]
    reasons: list[str | None]
    details: list[str | None]
    seconds: dict[str, float]
    batch: int


class Pipeline:
    """An encoder with the threads that read and prepare its rows, and those that run its model.

    An encoder that may be launched from several threads (a model on a CPU) is launched from ``threads`` of them, a
    batch on each, and what torch computes for a batch stays on its thread: threads that share an operator wait for each
    other at every layer, so that one that has lost its core to a decoder holds up all. Others are launched from one
    thread, and so is every one where ``threads`` is 1; how many torch uses then is left as it is set.

    Args:
        encoder: A loaded encoder.
        threads: Threads that prepare; on a CPU also those that run the model.
        launchers: Threads that run the model, where they are to be fewer.
    """

    def __init__(self, encoder: Encoder, threads: int, launchers: int | None = None) -> None:
        self.encoder = encoder
        self.launchers = launchers or (max(threads, 1) if encoder.parallel else 1)
        self._threads = Threads(encoder, max(threads, 1))
        self._model = ThreadPoolExecutor(
            self.launchers, thread_name_prefix="model", initializer=_alone if self.launchers > 1 else None
        )
        self._turn = threading.Lock()
        self._torch = sys.modules.get("torch") if self.launchers > 1 else None
        self._torch_threads = self._torch.get_num_threads() if self._torch else 0

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.close()
        self._model.shutdown(wait=True, cancel_futures=True)
        if self._torch:
            self._torch.set_num_threads(self._torch_threads)  # later threads take over what was set last

    def embed(self, values: Sequence[object], *, batch: int) -> Embedded:
        """Encodes values with reading, preparing and the model overlapped.

        Rows are prepared in windows; within a window they are sorted by cost, longest first, and cut into batches whose
        padded cost stays within ``batch``. The same values, batch size and device give the same batches, whatever the
        threads, unless memory runs out. Memory holds about three windows of prepared rows and two batches a thread of
        the model beside the vectors, for each call.

        Calls may overlap: one reads and prepares ahead while another has the model, and its batches follow at once.

        Args:
            values: n raw values, or callables without arguments that read one (run on reading threads).
            batch: Tokens (text) or rows (others) a batch may hold.

        Returns:
            Vectors, and what was wrong with the rows that have none.

        Raises:
            Exception: Whatever a value's callable raises except BadInputError: a failure of the storage, not of the
                row.
            torch.OutOfMemoryError: A single row does not fit the device.
        """
        result = Embedded(
            np.zeros((len(values), self.encoder.dim), np.float32),
            np.zeros(len(values), np.bool_),
            [None] * len(values),
            [None] * len(values),
            {"read": 0.0, "prepare": 0.0, "model": 0.0, "waiting": 0.0},
            batch,
        )
        ahead = Ahead(self._threads, values, max(self.encoder.window(batch), 1))
        call = _Call(self, result)
        try:
            with self._turn:
                call.feed(ahead)
            call.finish()
        finally:
            ahead.close()
            call.close()
        return result

    def launch(self, batch: Sequence[Any]) -> "Future[_Launched]":
        """Runs the model on a batch on one of its threads."""
        return self._model.submit(_launch, self.encoder, batch)


def embed(encoder: Encoder, values: Sequence[object], *, batch: int, threads: int) -> Embedded:
    """Encodes values once, as :meth:`Pipeline.embed`, on threads that end with it."""
    with Pipeline(encoder, threads) as pipeline:
        return pipeline.embed(values, batch=batch)


def _alone() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@dataclass(slots=True)
class _Launched:
    """What the encoder's ``launch`` returned, and the seconds it took."""

    value: Any
    seconds: float


def _launch(encoder: Encoder, batch: Sequence[Any]) -> _Launched:
    start = time.perf_counter()
    try:
        value = encoder.launch(batch)
    except RuntimeError as error:
        clear_frames(error.__traceback__)  # they hold what the failed batch had on the device
        raise
    return _Launched(value, time.perf_counter() - start)


@dataclass(slots=True)
class _Batch:
    """Rows that the model reads together."""

    rows: list[int]
    prepared: list[Any]


class _Call:
    """One call's batches on their way through the model, two for each of its threads at a time."""

    def __init__(self, pipeline: Pipeline, result: Embedded) -> None:
        self._pipeline, self._encoder, self._result = pipeline, pipeline.encoder, result
        self._batches: deque[_Batch] = deque()
        self._launched: deque[tuple[_Batch, Future[_Launched]]] = deque()

    def feed(self, ahead: Ahead) -> None:
        """Launches everything; the last batches are still under way when it returns."""
        while (chunks := ahead.next_window(self._meanwhile)) is not None:
            for chunk in chunks:
                self._note(chunk)
            rows = [row for chunk in chunks for row in chunk.rows]
            self._cut(rows, [item for chunk in chunks for item in chunk.prepared])
            while self._batches:
                self._step()

    def finish(self) -> None:
        """Brings in what is under way."""
        while self._batches or self._launched:
            self._step()

    def close(self) -> None:
        """After a failure: drops what has not begun and waits for the rest."""
        wait([future for _, future in self._launched if not future.cancel()])

    def _meanwhile(self, chunk: "Future[Chunk]") -> None:
        """Brings in batches until a chunk is prepared; with none left, the model waits."""
        while self._launched and not chunk.done():
            self._collect()
        before = time.perf_counter()
        wait([chunk])
        self._result.seconds["waiting"] += (time.perf_counter() - before) * self._pipeline.launchers

    def _note(self, chunk: Chunk) -> None:
        for row, error in chunk.errors:
            self._result.reasons[row], self._result.details[row] = str(error.reason), error.detail
        self._result.seconds["read"] += chunk.read
        self._result.seconds["prepare"] += chunk.prepare

    def _cut(self, rows: list[int], prepared: list[Any]) -> None:
        costs = [self._encoder.cost(item) for item in prepared]
        order = sorted(range(len(rows)), key=lambda i: (-costs[i], i))
        while order:
            count = fitting(costs[order[0]], self._result.batch, len(order))
            chosen, order = order[:count], order[count:]
            self._batches.append(_Batch([rows[i] for i in chosen], [prepared[i] for i in chosen]))

    def _step(self) -> None:
        if self._batches and len(self._launched) < 2 * self._pipeline.launchers:
            batch = self._batches.popleft()
            self._launched.append((batch, self._pipeline.launch(batch.prepared)))
        else:
            self._collect()

    def _collect(self) -> None:
        """Brings in the batch launched first; one that the device had no memory for is cut in two."""
        batch, future = self._launched.popleft()
        try:
            launched = future.result()
        except RuntimeError as error:
            if len(batch.rows) == 1 or not out_of_memory(error):
                raise
            self._halve(batch)
            return
        start = time.perf_counter()
        self._take(batch.rows, self._encoder.fetch(launched.value))
        self._result.seconds["model"] += launched.seconds + time.perf_counter() - start

    def _take(self, rows: list[int], vectors: Vectors) -> None:
        """Notes a batch's vectors; one with a value that is not finite is a bad input, with a reason."""
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
        self._result.vectors[rows] = np.where(finite[:, None], vectors, np.float32(0))
        self._result.ok[rows] = finite
        for place in np.flatnonzero(~finite).tolist():
            self._result.reasons[rows[place]] = str(Reason.NOT_FINITE)
            self._result.details[rows[place]] = "the encoder gives NaN or infinite values for it"

    def _halve(self, batch: _Batch) -> None:
        size = max(map(self._encoder.cost, batch.prepared)) * len(batch.rows)
        if size <= self._result.batch:
            self._result.batch = max(size // 2, 1)
        again = [batch, *self._batches]
        self._batches.clear()
        self._cut([row for each in again for row in each.rows], [item for each in again for item in each.prepared])


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
