"""Logs: every record knows its run, stage, input and shard; on stderr as lines for people, or as JSON lines."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

PACKAGE = "barycenter"
VARIABLE = "BARYCENTER_LOG"

LogFormat: TypeAlias = Literal["text", "json"]

_bound: ContextVar[dict[str, str] | None] = ContextVar("bound", default=None)
_ON_STDERR, _ON_PAGE = "on_stderr", "send_to_api"
"""Of a record: whether it is for stderr, and for the page of its run in Prefect, which named the second."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", _ON_STDERR, _ON_PAGE}


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


def in_stage(record: logging.LogRecord) -> str:
    """A record's message, with the stage it was logged in before it."""
    stage, message = bound_fields().get("stage"), record.getMessage()
    return message if stage is None or message.startswith(stage) else f"{stage}: {message}"


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


class _PlainLines(logging.Formatter):
    """A warning or error by its name; what was asked for by ``-v`` with its time."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = f"{record.levelname.lower()}: {in_stage(record)}"
        if record.levelno < logging.WARNING:
            line = f"{datetime.fromtimestamp(record.created):%H:%M:%S} {line}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment: a progress bar, or a test, puts something else in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001 - as every handler of the library
            self.handleError(record)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be shown."""
        return getattr(record, _ON_STDERR, True) and super().filter(record) is not False


@dataclass(frozen=True)
class _Shown:
    """How this process speaks to people on stderr."""

    prints: bool = True
    as_json: bool = False
    options: tuple[str, ...] = ()
    """As they were given on the command line."""


_shown = _Shown()


def say(logger: logging.Logger, text: str, fields: Mapping[str, object] | None = None, *, on_page: bool = True) -> None:
    """Shows a line once on stderr, unless JSON lines or quiet are asked for, and logs it at INFO.

    Prefect's console, or another one, may show what is logged: then nothing is printed beside.

    Args:
        logger: Of the module that says it.
        text: The line.
        fields: The record's ``extra``.
        on_page: Whether it goes to the page of the run as well.
    """
    if not _has_console(logger):
        print_line(text)
    logger.info("%s", text, extra={**(fields or {}), _ON_STDERR: not _shown.prints, _ON_PAGE: on_page})


def _has_console(logger: logging.Logger) -> bool:
    """Whether a handler of somebody else's shows what is logged at INFO on this process's terminal."""
    terminal = (sys.stdout, sys.__stdout__, sys.stderr, sys.__stderr__)
    each: logging.Logger | None = logger if logger.isEnabledFor(logging.INFO) else None
    while each is not None:
        for handler in each.handlers:
            if handler.level <= logging.INFO and not isinstance(handler, _Stderr) and _stream(handler) in terminal:
                return True
        each = each.parent if each.propagate else None
    return False


def _stream(handler: logging.Handler) -> object:
    return getattr(handler, "stream", handler)


def print_line(text: str) -> None:
    """Prints a line on stderr, unless JSON lines or quiet are asked for."""
    if _shown.prints:
        print(text, file=sys.stderr, flush=True)


def log_options() -> tuple[str, ...]:
    """The options of the command line that say what is logged and how, for a command that runs elsewhere."""
    return _shown.options


def say_last(text: str) -> None:
    """Prints what a command ends with on stderr, be it quiet or not; among JSON lines an error."""
    if _shown.as_json:
        logging.getLogger(PACKAGE).error("%s", text, extra={_ON_PAGE: False})
    else:
        print(f"{PACKAGE}: {text}", file=sys.stderr, flush=True)


def log_to_page(logger: logging.Logger, level: int, text: str) -> None:
    """Logs for the page of the run, and Prefect's console, what stderr gets otherwise."""
    logger.log(level, "%s", text, extra={_ON_STDERR: False})


def draws_progress() -> bool:
    """Whether progress may be drawn on a terminal."""
    return _shown.prints


def set_up_logs() -> None:
    """Sends the package's records to stderr as JSON lines if the environment asks for it; otherwise does nothing."""
    if os.environ.get(VARIABLE, "").lower() == "json" and not _handlers():
        _attach(logging.INFO, _Shown(prints=False, as_json=True))


@contextmanager
def shown_logs(log_format: LogFormat | None = None, verbosity: int = 0) -> Iterator[None]:
    """Sends the package's records to stderr, for the length of the block.

    Args:
        log_format: As lines for people or as JSON lines; by default as the environment asks for.
        verbosity: Of lines for people, 0: progress, notes and warnings; 1: what is logged at INFO as well; 2: at DEBUG;
            -1: warnings and errors; -2: errors. Of JSON lines 0 is INFO, too.
    """
    logger = logging.getLogger(PACKAGE)
    before = logger.level, logger.propagate, _handlers()
    asked = log_format or ("json" if os.environ.get(VARIABLE, "").lower() == "json" else "text")
    levels = [logging.ERROR, logging.WARNING, logging.WARNING, logging.INFO, logging.DEBUG]
    if asked == "json":
        levels[2] = logging.INFO
    shown = _shown
    for handler in before[2]:
        logger.removeHandler(handler)
    verbosity = max(-2, min(2, verbosity))
    options = (*([] if log_format is None else ["--log-format", log_format]), *_verbosity_options(verbosity))
    _attach(levels[verbosity + 2], _Shown(verbosity >= 0 and asked != "json", asked == "json", options))
    try:
        yield
    finally:
        for handler in _handlers():
            logger.removeHandler(handler)
        for handler in before[2]:
            logger.addHandler(handler)
        logger.level, logger.propagate = before[:2]
        _set_shown(shown)


def _verbosity_options(verbosity: int) -> list[str]:
    return [f"-{('v' if verbosity > 0 else 'q') * abs(verbosity)}"] if verbosity else []


def _attach(level: int, shown: _Shown) -> None:
    logger = logging.getLogger(PACKAGE)
    _set_shown(shown)
    handler = _Stderr()
    handler.setLevel(level)
    handler.setFormatter(JsonLines() if shown.as_json else _PlainLines())
    logger.addHandler(handler)
    logger.setLevel(min(level, logging.INFO))
    if shown.as_json:
        logger.propagate = False  # Prefect's console would show each a second time


def _set_shown(shown: _Shown) -> None:
    global _shown
    _shown = shown


def _handlers() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger(PACKAGE).handlers if isinstance(handler, _Stderr)]
