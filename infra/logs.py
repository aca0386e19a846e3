"""Structured logs: every record knows its run, stage and shard; JSON lines where ``BARYCENTER_LOG`` is ``json``."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

PACKAGE = "barycenter"
VARIABLE = "BARYCENTER_LOG"

_bound: ContextVar[dict[str, str] | None] = ContextVar("bound", default=None)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Adds fields, such as run and stage, to every record logged inside the block."""
    token = _bound.set({**bound_fields(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bound_fields() -> dict[str, str]:
    """The fields that records get here."""
    return _bound.get() or {}


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, what is bound, and the record's ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **bound_fields(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logs() -> None:
    """Sends the package's records to stderr as JSON lines if the environment asks for it; otherwise does nothing."""
    if os.environ.get(VARIABLE, "").lower() != "json":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger(PACKAGE)
    if not any(isinstance(each.formatter, JsonLines) for each in logger.handlers):
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
