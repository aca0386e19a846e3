"""The page of a run in Prefect: its log lines, events and artifacts, all through one outbox."""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import Event
from prefect.events.worker import EventsWorker, ProcessPoolForwardingEventsClient, emit_events_to_cloud
from prefect.logging.handlers import APILogHandler, set_api_log_sink

from barycenter.infra.clock import current_clock
from barycenter.infra.logs import PACKAGE, in_stage, say_last
from barycenter.infra.userinfo import showable
from barycenter.tasks.observability.outbox import Outbox

_LINES_A_SECOND, _LINES_AT_ONCE = 20.0, 1_000
_SHARDS_A_SECOND, _SHARDS_AT_ONCE = 0.2, 10
_LAST_WORDS_SECONDS = 10.0
_LAST_EVENTS_SECONDS = 2.0

_open: Outbox | None = None


def current_outbox() -> Outbox | None:
    """What sends to the server of this process's run; None outside of one."""
    return _open


@contextmanager
def reporting(say: Callable[[str], None] = say_last) -> Iterator[Outbox]:
    """Sends all that a run says of itself by one thread, for the length of the block; within another such block by its.

    That is what the package logs at INFO and above, what other libraries log at WARNING and above, and the log lines
    and events of Prefect's own engine.
    """
    global _open
    if _open is not None:
        yield _open
        return
    _open = outbox = Outbox(say)
    with ExitStack() as stack:
        stack.callback(_close, outbox)
        stack.enter_context(_routed(outbox))
        stack.enter_context(_logged(outbox))
        yield outbox


def _close(outbox: Outbox) -> None:
    global _open
    _open = None
    outbox.close(_LAST_WORDS_SECONDS)


@contextmanager
def _routed(outbox: Outbox) -> Iterator[None]:
    """Leads the log lines and events of Prefect's engine to the outbox; Prefect Cloud takes events its own way."""
    set_api_log_sink(outbox.add_line)
    if not emit_events_to_cloud():
        EventsWorker.set_client_override(ProcessPoolForwardingEventsClient, event_queue=_EventQueue(outbox))
    try:
        yield
    finally:
        logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # it warns of every event that still waits
        EventsWorker.drain_all(timeout=_LAST_EVENTS_SECONDS)
        EventsWorker.set_client_override(None)
        set_api_log_sink(None)


class _EventQueue:
    """The queue that Prefect hands events to, as it would to another process."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def put(self, item: tuple[str, Event]) -> None:
        self._outbox.add_event(item[1])


@contextmanager
def _logged(outbox: Outbox) -> Iterator[None]:
    """Puts log records on the page."""
    package, root = logging.getLogger(PACKAGE), logging.getLogger()
    ours, others = _PageHandler(outbox), _PageHandler(outbox, others=True)
    theirs = [
        handler for handler in package.handlers if type(handler) is APILogHandler
    ]  # PREFECT_LOGGING_EXTRA_LOGGERS
    level = package.level
    if not level or level > logging.INFO:
        package.setLevel(logging.INFO)
    for handler in theirs:
        package.removeHandler(handler)
    package.addHandler(ours)
    root.addHandler(others)
    try:
        yield
    finally:
        root.removeHandler(others)
        package.removeHandler(ours)
        for handler in theirs:
            package.addHandler(handler)
        package.setLevel(level)


class _Rate:
    """Lets so many pass a second, after so many at once."""

    def __init__(self, a_second: float, at_once: float) -> None:
        self._a_second, self._at_once = a_second, at_once
        self._room, self._asked = at_once, current_clock().monotonic()

    def passes(self) -> bool:
        """Whether one more may pass."""
        now = current_clock().monotonic()
        self._room = min(self._at_once, self._room + self._a_second * (now - self._asked))
        self._asked = now
        if self._room < 1:
            return False
        self._room -= 1
        return True


class _PageHandler(APILogHandler):
    """Sends records to the page of the run; lines that come too fast are left out and counted, warnings never are.

    Of lines about single shards, which would bury the others, one every few seconds is shown.

    Prefect's own handler takes a record's run from the context of its thread; other threads speak for the last run that
    was seen.
    """

    def __init__(self, outbox: Outbox, *, others: bool = False) -> None:
        super().__init__(logging.WARNING if others else logging.INFO)
        self._outbox, self._others = outbox, others
        self._run: str | None = None
        self._rate = _Rate(_LINES_A_SECOND, _LINES_AT_ONCE)
        self._shards = _Rate(_SHARDS_A_SECOND, _SHARDS_AT_ONCE)
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is one that this handler is for."""
        package = record.name.partition(".")[0]
        return self._others != (package == PACKAGE) and package != "prefect" and super().filter(record) is not False

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a record, if it is not one too many."""
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None:
            self._run = str(context.flow_run.id)
        if self._run is None:
            return
        rate = self._shards if hasattr(record, "shard") else self._rate
        if record.levelno < logging.WARNING and not rate.passes():
            self._left_out += 1
            return
        super().emit(record)

    def prepare(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line as the API takes it."""
        record = copy.copy(record)
        record.msg, record.args = "%s", (in_stage(record),)
        if FlowRunContext.get() is None and TaskRunContext.get() is None:
            record.flow_run_id = self._run
        line: dict[str, Any] = super().prepare(record)
        line["message"] = showable(line["message"])
        if self._left_out:
            line["message"] += f" ({self._left_out} lines before this one are left out here)"
            self._left_out = 0
        return line
