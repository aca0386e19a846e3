"""What workers log, handed back to the driver with their results and logged there again."""

import logging
import re
import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from barycenter.infra.logs import PACKAGE, bound_fields

T = TypeVar("T")

_MOST_KEPT = 100
_MOST_ALIKE = 5
_KIND = 200
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True)
class Line:
    """One record of a worker: plain data."""

    logger: str
    level: int
    created: float
    message: str
    fields: dict[str, str]


@dataclass(frozen=True)
class WithLines(Generic[T]):
    """A worker's answer, and what it has logged since the one before; ``left_out`` lines were too many."""

    worker: str
    answer: T
    lines: tuple[Line, ...]
    left_out: int


class WorkerLines(logging.Handler):
    """Keeps what is logged in a worker process until it answers: the package at INFO and above, others at WARNING.

    Of lines that differ in their arguments or numbers alone a worker hands back five; of all a hundred an answer.
    All of them are in Ray's log of the worker, too.
    """

    def __init__(self, worker: str) -> None:
        super().__init__(logging.INFO)
        self._worker = worker
        self._lines: deque[Line] = deque()
        self._alike: Counter[tuple[str, str]] = Counter()
        self._left_out = 0
        self._guard = threading.Lock()
        log_file = logging.StreamHandler()
        log_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for handler in (self, log_file):
            logging.getLogger().addHandler(handler)
        logging.getLogger(PACKAGE).setLevel(logging.INFO)
        logging.captureWarnings(True)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is handed back."""
        ours = record.name.partition(".")[0] == PACKAGE
        return (ours or record.levelno >= logging.WARNING) and super().filter(record) is not False

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record, on one line."""
        message = " ".join(record.getMessage().split())
        kind = (record.name, _NUMBERS.sub("", message if record.msg == "%s" else str(record.msg))[:_KIND])
        with self._guard:
            self._alike[kind] += 1
            if self._alike[kind] > _MOST_ALIKE or len(self._lines) >= _MOST_KEPT:
                self._left_out += 1
                return
            self._lines.append(Line(record.name, record.levelno, record.created, message, bound_fields()))

    def attach(self, answer: T) -> WithLines[T]:
        """An answer with the lines that were kept; they are kept no longer."""
        with self._guard:
            taken = WithLines(self._worker, answer, tuple(self._lines), self._left_out)
            self._lines.clear()
            self._left_out = 0
        return taken


def log_again(answer: WithLines[T]) -> T:
    """Logs in the driver what a worker has logged; the answer."""
    worker = answer.worker
    for line in answer.lines:
        logger = logging.getLogger(line.logger)
        if logger.isEnabledFor(line.level):
            logger.handle(_record(line, worker))
    if answer.left_out:
        text = "worker %s logged %d lines more, which Ray's log of it has"
        logging.getLogger(__name__).info(text, worker, answer.left_out)
    return answer.answer


def _record(line: Line, worker: str) -> logging.LogRecord:
    fields = {"name": line.logger, "levelno": line.level, "levelname": logging.getLevelName(line.level)}
    times = {"created": line.created, "msecs": line.created % 1 * 1000}
    return logging.makeLogRecord(
        {**fields, **times, **line.fields, "worker": worker, "msg": "%s (worker %s)", "args": (line.message, worker)}
    )
