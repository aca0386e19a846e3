"""A run from the command line: Prefect's server and Ray come up side by side, and cancelling the run stops it."""

import _thread
import importlib
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import barycenter.flows.environment  # noqa: F401  (before Prefect and Ray)
from barycenter.fusion.errors import RunError
from barycenter.infra.job.models import Job

LOCAL_API = "http://127.0.0.1:4200/api"
_ANSWER_SECONDS = 1.0
_PATIENCE_SECONDS = 30.0
_WATCH_SECONDS = 2.0

Result = dict[str, Any] | None


def run_flow(module: str, name: str, job: Job, *, workers: bool = True, **flags: bool) -> Result:
    """Runs one of the project's flows in this process.

    A Prefect server that is configured, or that answers at its usual address on this machine, gets the run; otherwise
    a temporary one is started, while Ray starts and the flow is imported.

    ``module`` and ``name`` say where the flow is, ``workers`` whether it needs some; ``flags`` are its further
    parameters.

    Returns:
        What the flow returned; None where it was skipped because another process holds the output.

    Raises:
        RunError: The flow failed, was cancelled, or a server that was asked for does not answer.
    """
    importing = _in_background(lambda: importlib.import_module(module))
    with ExitStack() as stack:
        server_ready = stack.enter_context(_server())
        if workers:
            from barycenter.tasks.run.workers import open_cluster

            stack.enter_context(open_cluster(job.ray.address))
        flow = getattr(importing.result(), name)
        server_ready()
        watcher = _CancellationWatcher()
        stack.enter_context(watcher.until_over())
        result: Result = flow.with_options(on_running=[watcher.start])(job, **flags)
        return result


def _in_background(call: Callable[[], Any]) -> Future[Any]:
    """A call in a daemon thread of its own; an executor's threads would keep the process from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextmanager
def _server() -> Iterator[Callable[[], object]]:
    """Chooses Prefect's server; what it yields waits until that is ready."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    configured = PREFECT_API_URL.value()
    if configured:
        if not answers(configured, _PATIENCE_SECONDS):
            raise RunError(
                f"no Prefect server answers at {configured}; start it (`prefect server start`) or unset PREFECT_API_URL"
            )
        yield lambda: None
    elif answers(LOCAL_API):
        with temporary_settings({PREFECT_API_URL: LOCAL_API}):
            yield lambda: None
    else:
        _check_home()
        yield _in_background(_start_server).result


def _check_home() -> None:
    """Raises RunError where Prefect's home cannot hold the database of a temporary server."""
    from prefect.settings import PREFECT_HOME

    home = Path(PREFECT_HOME.value()).expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise RunError(
            f"{home} cannot be written to, and Prefect keeps its database there; set PREFECT_HOME to a folder"
        )


def _start_server() -> None:
    from prefect.server.api.server import SubprocessASGIServer

    try:
        SubprocessASGIServer().start()
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"the temporary Prefect server did not start: {reason}; run again (on a busy machine with "
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300), or start one with `prefect server start`"
        ) from error


def answers(api: str, seconds: float = _ANSWER_SECONDS) -> bool:
    """Whether a Prefect server answers at an API address; a busy one may take ``seconds``."""
    try:
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=seconds) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except (OSError, ValueError):
        return False


class _CancellationWatcher:
    """Heeds a cancellation asked for in Prefect's UI or command line, which no worker sees to for this process."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._run_id: UUID | None = None
        self._asked = False

    def start(self, _flow: object, flow_run: Any, _state: object) -> None:
        """A hook for the flow's start: looks every two seconds whether the run is to be cancelled."""
        self._run_id = flow_run.id
        threading.Thread(target=self._poll, args=(self._run_id,), daemon=True).start()

    @contextmanager
    def until_over(self) -> Iterator[None]:
        """Turns the interruption of a cancelled run into its state in Prefect and an error that says so."""
        try:
            yield
        except BaseException as error:
            if not self._asked or self._run_id is None:
                raise
            from prefect.client.orchestration import get_client
            from prefect.states import Cancelled

            with get_client(sync_client=True) as client:
                state: Any = Cancelled(message="Ray's workers are stopped.")
                client.set_flow_run_state(self._run_id, state, force=True)
            raise RunError("the run was cancelled in Prefect; run again to go on where this stopped") from error
        finally:
            self._over.set()

    def _poll(self, run_id: UUID) -> None:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            while not self._over.wait(_WATCH_SECONDS):
                with suppress(Exception):
                    state = client.read_flow_run(run_id).state
                    self._asked = state is not None and (state.is_cancelling() or state.is_cancelled())
                if self._asked:
                    _thread.interrupt_main(signal.SIGTERM)
                    return
