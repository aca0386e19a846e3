"""How far a stage is: a bar on a terminal, plain lines elsewhere; always on stderr."""

import logging
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from barycenter.infra.clock import current_clock
from barycenter.infra.deadline import check_deadline
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.logs import bound, draws_progress, say
from barycenter.infra.ray.metrics import StageMetrics
from barycenter.infra.storage import Storage
from barycenter.tasks.observability.artifacts import ProgressArtifact
from barycenter.tasks.run.progress_file import enter_stage, leave_stage, note_progress, write_progress

log = logging.getLogger(__name__)

WAITED_SECONDS = 10.0
"""A stage that takes so long is waited for: only then is it said what limited it."""

_LINE_EVERY = 5.0
_FILE_EVERY = 2.0


class _Bars:
    """The bars of the stages that run at the same time, in one display: a terminal bears no second one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages = 0
        self._display: Progress | None = None

    def enter(self, console: Console) -> Progress:
        """The display, started by the first stage."""
        with self._lock:
            self._stages += 1
            if self._display is None:
                self._display = Progress(
                    TextColumn("{task.description:<14}", markup=False),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TextColumn("rows  {task.fields[rate]}"),
                    TimeElapsedColumn(),
                    TimeRemainingColumn(),
                    console=console,
                )
                self._display.start()
            return self._display

    def leave(self) -> None:
        """Ends the display with its last stage."""
        with self._lock:
            self._stages -= 1
            if not self._stages and self._display is not None:
                self._display.stop()
                self._display = None


_BARS = _Bars()


class StageProgress:
    """Counts the rows of one stage and reports rows, rows/s and time left: here, to Prefect, Ray's metrics and the log.

    ``skipped`` rows were found done before the stage began; progress.json is kept up to date in the storage, if any.
    """

    def __init__(self, stage: str, total: int, *, skipped: int = 0, storage: Storage | None = None) -> None:
        self.stage, self.total, self.skipped, self.done = stage, total, skipped, 0
        self.started = current_clock().monotonic()
        self._storage = storage
        self._last_line = self._last_file = self._counted = self.started
        self._bar: Progress | None = None
        self._console = Console(stderr=True)
        self._artifact = ProgressArtifact(stage, storage.uri() if storage is not None else "")
        self._metrics = StageMetrics(stage)
        self._bound = ExitStack()

    def __enter__(self) -> "StageProgress":
        with bound(stage=self.stage):
            check_deadline()
        if self._storage is not None:
            enter_stage(self._storage, self.stage)
            self._bound.callback(leave_stage, self._storage, self.stage)
        _, _, of = self.stage.partition(" ")
        self._bound.enter_context(bound(stage=self.stage, **({"input": of} if of else {})))
        log.info("%s: %d rows to do", self.stage, self.total, extra={"rows": self.total, "done": self.skipped})
        self._artifact.show(0, self.total)
        if self._console.is_terminal and draws_progress():
            self._bar = _BARS.enter(self._console)
            self._task = self._bar.add_task(self.stage, total=self.total, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop_task(self._task)
            _BARS.leave()
        if self._storage is not None:
            self._noted(self._storage)
        if kind is None:
            self._artifact.show(self.done, self.total, at_once=True)
            if self._bar is None:
                say(log, self._line(final=True), self.figures())
            else:
                log.info("%s", self._line(final=True), extra=self.figures())
        with suppress(Exception):  # what only shows never hides what went wrong
            self._metrics.reserved(0, 0.0, 0.0)
        self._bound.close()

    @property
    def seconds(self) -> float:
        """Seconds since the stage began."""
        return current_clock().monotonic() - self.started

    def report_workers(self, workers: WorkerAllocation, cluster_gpus: float) -> None:
        """Reports how many workers the stage has, and what share of the cluster's GPUs they hold."""
        self._metrics.reserved(workers.workers, workers.workers * workers.gpus_per_worker, cluster_gpus)

    def advance(self, rows: int, parts: Mapping[str, float] | None = None) -> None:
        """Counts ``rows`` more as done, and the seconds of each part of the work on them; by default all since last."""
        self.done += rows
        self._artifact.show(self.done, self.total)
        now = current_clock().monotonic()
        self._metrics.advance(rows, self.total - self.done, parts or {"work": now - self._counted})
        self._counted = now
        rate = self.done / max(now - self.started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{rate:,.0f} rows/s")
        elif now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            say(log, self._line(), {"rows": self.done, "total": self.total}, on_page=False)
        if self._storage is not None and now - self._last_file >= _FILE_EVERY:
            self._last_file = now
            write_progress(self._storage, self._noted(self._storage))

    def count_lost(self, cause: str) -> None:
        """Counts a worker that was lost."""
        self._metrics.lost(cause)

    def count_bad(self, reasons: Mapping[str, int]) -> None:
        """Counts bad inputs by reason."""
        self._metrics.bad(reasons)

    def note(self, text: str) -> None:
        """Prints a line about the stage beside its progress."""
        say(log, f"{self.stage}: {text}")

    def figures(self) -> dict[str, float]:
        """Rows, seconds and rows/s, as report.json has them."""
        seconds = self.seconds
        return {
            "rows": self.done,
            "seconds": round(seconds, 4),
            "rows_per_s": round(self.done / seconds, 2) if self.done else 0.0,
        }

    def _noted(self, storage: Storage) -> list[dict[str, Any]]:
        return note_progress(storage, self.stage, self.done, self.total, self.done / max(self.seconds, 1e-9))

    def _line(self, *, final: bool = False) -> str:
        rate = self.done / max(self.seconds, 1e-9)
        left = (self.total - self.done) / rate if rate and not final else 0.0
        parts = [f"{self.stage}: {self.done:,}/{self.total:,} rows"]
        if self.done:
            parts.append(f"{rate:,.0f} rows/s")
        parts.append(f"{self.seconds:.1f} s" if final else f"about {left:.0f} s left")
        if self.skipped:
            parts.append(f"{self.skipped:,} rows were done before")
        return ", ".join(parts)
