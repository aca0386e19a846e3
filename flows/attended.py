"""A flow run that somebody waits for in its own process: it heeds cancellation, and ends though its server is gone."""

import _thread
import json
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.context import SyncClientContext
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from barycenter.flows.ending import Ending, attended
from barycenter.infra.clock import current_clock
from barycenter.tasks.observability.outbox import REQUEST_SECONDS, Outbox
from barycenter.tasks.observability.run_page import reporting

_WATCH_SECONDS = 2.0
_LAST_WORDS_SECONDS = 10.0
_INTERRUPTED_SECONDS = 3.0
_END_SECONDS = 15.0


class ServerIsSilentError(httpx.TransportError):
    """A request that is not tried, because the server did not answer before it; Prefect's client does not repeat it."""


class AttendedRun:
    """One run of a flow; :meth:`run` gives what its work gave, also where no server took note of it."""

    def __init__(self) -> None:
        self.cancelled = False
        self._outbox: Outbox | None = None
        self._ending: Ending | None = None
        self._ended_at = 0.0
        self._over = threading.Event()

    def run(self, flow: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Runs a flow whose function is :func:`barycenter.flows.ending.reported`.

        Raises:
            BarycenterError: What the flow's function raised; RunError where the run was cancelled in Prefect.
            KeyboardInterrupt: The run was interrupted, or ended by SIGTERM.
        """
        hooks = {"event_hooks": {"request": [self._before_request]}}
        try:
            with reporting() as self._outbox, SyncClientContext(hooks), attended(self):
                flow(*args, **kwargs)
        except TerminationSignal:
            if self._ending is None:
                raise KeyboardInterrupt from None
        except BaseException as error:
            if self._ending is None:
                raise
            if self._outbox is not None and isinstance(error, httpx.HTTPError):  # it went away at the very last
                self._outbox.found_silent()
        finally:
            self._over.set()
        if self._ending is not None and self._ending.error is not None:
            raise self._ending.error
        return self._ending.result if self._ending is not None else None

    def began(self, flow_run: Any) -> None:
        """Looks every two seconds whether the run is to be cancelled, which no worker sees to for this process."""
        # A thread sees the settings of its own context: without this one's it would start a server of its own to ask.
        asking = partial(copy_context().run, self._poll, flow_run.id)
        threading.Thread(target=asking, name="cancellation", daemon=True).start()

    def ended(self, ending: Ending) -> None:
        """Keeps what the work came to; what is still to be shown is sent, if the server takes it."""
        self._over.set()
        self._ending = ending
        if self._outbox is not None:
            interrupted = isinstance(ending.error, KeyboardInterrupt) or self.cancelled
            self._outbox.settle(_INTERRUPTED_SECONDS if interrupted else _LAST_WORDS_SECONDS)
        self._ended_at = current_clock().monotonic()

    def _before_request(self, request: httpx.Request) -> None:
        """Keeps Prefect's engine from waiting for long once the work is done."""
        if self._ending is None or self._outbox is None:
            return
        late = current_clock().monotonic() - self._ended_at > _END_SECONDS
        if self._outbox.silent or late or not _agrees(request, self._ending):
            raise ServerIsSilentError("the Prefect server does not answer")
        request.extensions["timeout"] = httpx.Timeout(REQUEST_SECONDS).as_dict()

    def _poll(self, run_id: UUID) -> None:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": REQUEST_SECONDS}) as client,
        ):
            while not self._over.wait(_WATCH_SECONDS):
                with suppress(Exception):
                    state = client.read_flow_run(run_id).state
                    self.cancelled = state is not None and (state.is_cancelling() or state.is_cancelled())
                if self.cancelled and not self._over.is_set():
                    _thread.interrupt_main(signal.SIGTERM)
                    return


def _agrees(request: httpx.Request, ending: Ending) -> bool:
    """Whether a request sets no other state than the run ended in, as Prefect's engine does once one has failed."""
    if not request.url.path.endswith("/set_state"):
        return True
    state = json.loads(request.content)["state"]["type"]
    if ending.state is not None:
        return bool(state == ending.state.type.value)
    return bool(state == ("COMPLETED" if ending.error is None else "FAILED"))
