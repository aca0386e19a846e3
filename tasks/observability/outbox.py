"""What a Prefect server gets of a run while it works, sent by one thread: no work waits for a server."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from barycenter.infra.clock import current_clock

if TYPE_CHECKING:
    from prefect.events import Event

Send: TypeAlias = Callable[[SyncPrefectClient], object]
"""One request, or several that belong together."""

REQUEST_SECONDS = 10.0
"""How long one request may take before the server counts as silent."""

_PACE_SECONDS = 0.5
_AGAIN_SECONDS = 2.0
_SILENT_PATIENCE_SECONDS = 2.0
_TRIES = 3
_MOST_WAITING = 5_000
_MOST_BYTES = 500_000
_MOST_AT_ONCE = 200
_SILENT = "the Prefect server does not answer; the run goes on, and its page as soon as the server does"
_MOST_REFUSED = 3
_SIZE = "__payload_size__"
"""Where Prefect's log handler puts the size of a line, in bytes."""


@dataclass(frozen=True)
class _Parcel:
    """What goes in one request, what to call it, how to put it back where it waited; its halves, if it has some."""

    what: str
    send: Send
    put_back: Callable[[], object]
    halves: Callable[[], tuple["_Parcel", "_Parcel"]] | None = None


class Outbox:
    """Keeps what is to be sent, in bounds, and sends it as soon as the server takes it.

    Nothing here waits but :meth:`settle` and :meth:`close`. While the server does not answer, this is kept for it: of
    one thing that is shown the last, of lines and events the last five thousand.

    Args:
        say: Called, from the thread, with lines for people: once where the server is found silent, once for each kind
            of thing that it refuses.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._changed = threading.Condition()
        self._shown: dict[str, Send] = {}
        self._events: deque[Event] = deque(maxlen=_MOST_WAITING)
        self._lines: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._silent = self._said = self._closed = self._at_work = False
        self._failures = self._attempts = self._urgent = 0
        self._refused: set[str] = set()
        self._refused_alone: Counter[str] = Counter()
        self._answered_at = current_clock().monotonic()
        # The thread sees the settings of this context: those of the server that has the run.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="prefect", daemon=True)
        self._thread.start()

    @property
    def silent(self) -> bool:
        """Whether the server does not answer: the one flag for the whole run."""
        return self._silent

    def show(self, what: str, send: Send) -> None:
        """Sends what a run shows; the last that waits under one name replaces those before it."""
        with self._changed:
            self._shown[what] = send
            self._changed.notify_all()

    def add_event(self, event: "Event") -> None:
        """Sends an event."""
        self._add(self._events, event)

    def add_line(self, line: dict[str, Any]) -> None:
        """Sends a line of a run's log, as Prefect's API log handler prepares it."""
        self._add(self._lines, line)

    def settle(self, seconds: float) -> bool:
        """Waits until all is sent, for so long at most; for two seconds of a server that is silent already.

        Returns:
            Whether all is sent. A server that answered nothing in this time counts as silent from now on.
        """
        began, attempts = current_clock().monotonic(), self._attempts
        with self._changed:
            self._urgent += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._is_empty() or (self._silent and self._attempts > attempts) or not self._thread.is_alive(),
                min(seconds, _SILENT_PATIENCE_SECONDS) if self._silent else seconds,
            )
            self._urgent -= 1
            empty = self._is_empty()
        if not empty and self._answered_at < began:
            self.found_silent()
        return empty

    def found_silent(self) -> None:
        """Takes note that the server does not answer; says so once."""
        self._silent = True
        if not self._said:
            self._said = True
            self._say(_SILENT)

    def close(self, seconds: float) -> None:
        """Sends what it can in this time and ends the thread; one that waits for an answer is left behind."""
        self.settle(seconds)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not self._at_work:
            self._thread.join(_PACE_SECONDS)

    def _add(self, queue: "deque[Any]", item: object) -> None:
        with self._changed:
            queue.append(item)
            self._changed.notify_all()

    def _is_empty(self) -> bool:
        return not (self._shown or self._events or self._lines or self._at_work)

    def _run(self) -> None:
        timeout = {"timeout": httpx.Timeout(REQUEST_SECONDS)}
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings=timeout) as client,
        ):
            while self._wait():
                sent = True
                while sent and (parcel := self._next()) is not None:
                    sent = self._sent(parcel, client)
                self._rest(sent)

    def _wait(self) -> bool:
        """Waits for something to send; whether to go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._is_empty())
            self._at_work = not self._closed
            return self._at_work

    def _rest(self, sent: bool) -> None:
        """Lets things come together for the next request, or the server come back; less long where somebody waits."""
        with self._changed:
            self._at_work, waiting = False, self._urgent
            self._attempts += 1
            self._changed.notify_all()
            pause = _PACE_SECONDS if sent or waiting else _AGAIN_SECONDS
            self._changed.wait_for(lambda: self._closed or self._urgent > (0 if sent else waiting), pause)

    def _next(self) -> _Parcel | None:
        with self._changed:
            if self._shown:
                what, send = next(iter(self._shown.items()))
                del self._shown[what]
                return _Parcel(what, send, partial(self._shown.setdefault, what, send))
            if self._events:
                events = _taken(self._events, lambda event: int(event.size_bytes))
                return _batch("some events", _send_events, self._events, events)
            if self._lines:
                lines = _taken(self._lines, lambda line: int(line[_SIZE]))
                return _batch("some log lines", _send_lines, self._lines, lines)
            return None

    def _sent(self, parcel: _Parcel, client: SyncPrefectClient) -> bool:
        """Sends one parcel; whether it is done with, be it that the server refuses it for good.

        Of a batch that is refused the halves are sent, until what the server does not take is alone; where that is so
        of one after the other, it takes none.
        """
        try:
            parcel.send(client)
        except Exception as error:  # noqa: BLE001 - what only shows never hurts a run
            unanswered = isinstance(error, httpx.TransportError)
            self._failures += 1
            if unanswered or (_is_passing(error) and self._failures < _TRIES):
                with self._changed:
                    parcel.put_back()
                if unanswered and self._failures > 1:
                    self.found_silent()
                return False
            if parcel.halves is not None and self._refused_alone[parcel.what] < _MOST_REFUSED:
                first, second = parcel.halves()
                with self._changed:
                    second.put_back()
                return self._sent(first, client)
            self._refused_alone[parcel.what] += 1
            if parcel.what not in self._refused:
                self._say(f"Prefect did not take {parcel.what}: {' '.join(str(error).split())[:200]}")
            self._refused.add(parcel.what)
        else:
            self._refused_alone.pop(parcel.what, None)
        self._failures, self._silent = 0, False
        self._answered_at = current_clock().monotonic()
        return True


def _taken(queue: "deque[Any]", size: Callable[[Any], int]) -> list[Any]:
    """Takes the oldest from a queue, as many as make one request."""
    taken: list[Any] = []
    total = 0
    while queue and len(taken) < _MOST_AT_ONCE and total < _MOST_BYTES:
        taken.append(queue.popleft())
        total += size(taken[-1])
    return taken


def _batch(what: str, send: Callable[..., object], queue: "deque[Any]", taken: Sequence[Any]) -> _Parcel:
    """What was taken from a queue, as one parcel."""
    middle = len(taken) // 2

    def halves() -> tuple[_Parcel, _Parcel]:
        return _batch(what, send, queue, taken[:middle]), _batch(what, send, queue, taken[middle:])

    return _Parcel(what, partial(send, taken), partial(_put_back, queue, taken), halves if middle else None)


def _put_back(queue: "deque[Any]", taken: Sequence[Any]) -> None:
    """Puts in front what could not be sent, but nothing in the place of what is newer."""
    room = _MOST_WAITING - len(queue)
    queue.extendleft(reversed(taken[-room:] if room else []))


def _send_events(events: "Sequence[Event]", client: SyncPrefectClient) -> None:
    client.request("POST", "/events", json=[event.model_dump(mode="json") for event in events])


def _send_lines(lines: Sequence[dict[str, Any]], client: SyncPrefectClient) -> None:
    client.create_logs([{name: value for name, value in line.items() if name != _SIZE} for line in lines])


def _is_passing(error: Exception) -> bool:
    """Whether a server that answered was only too busy."""
    return isinstance(error, PrefectHTTPStatusError) and (
        error.response.status_code >= 500 or error.response.status_code in (408, 429)
    )
