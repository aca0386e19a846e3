"""A run from the command line: Prefect's server and Ray come up side by side."""

import importlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import barycenter.flows.environment  # noqa: F401  (before Prefect and Ray)
from barycenter.flows.health import answers, check_server
from barycenter.flows.temporary_server import TemporaryServer
from barycenter.fusion.errors import RunError
from barycenter.infra.job.models import Job

LOCAL_API = "http://127.0.0.1:4200/api"
_PATIENCE_SECONDS = 30.0

Result = dict[str, Any] | None


def run_flow(
    module: str, name: str, job: Job, server: "PrefectServer", *, workers: bool = True, **flags: Any
) -> Result:
    """Runs one of the project's flows in this process; Ray starts and the flow is imported while the server starts.

    ``module`` and ``name`` say where the flow is, ``workers`` whether it needs some; ``flags`` are its further
    parameters.

    Returns:
        What the flow returned; None where it was skipped because another process holds the output.

    Raises:
        RunError: The flow failed, was cancelled, or a server that was asked for does not answer.
    """
    server.check()
    importing = _in_background(lambda: importlib.import_module(module))
    with ExitStack() as stack:
        if workers:
            from barycenter.tasks.run.workers import open_cluster

            stack.enter_context(open_cluster(job.ray))
        flow = getattr(importing.result(), name)
        server.wait()
        from barycenter.flows.attended import AttendedRun

        result: Result = AttendedRun().run(flow, job, **flags)
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
def lasting_server() -> Iterator[None]:
    """The Prefect server that is configured, or the one on this machine, for what has to outlast this process.

    Raises:
        RunError: None answers.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    api = PREFECT_API_URL.value() or LOCAL_API
    if not answers(api, _PATIENCE_SECONDS):
        raise RunError(
            f"no Prefect server answers at {api}; start it with `prefect server start`, or set PREFECT_API_URL"
        )
    check_server(api, _PATIENCE_SECONDS)
    with temporary_settings({PREFECT_API_URL: api}):
        yield


class PrefectServer:
    """The Prefect server that gets a run: a configured one, one on this machine, else a temporary one.

    A context manager: entered before the job is looked at, so that a temporary server starts meanwhile.
    """

    def __init__(self) -> None:
        self._lasting: str | None = None
        self._temporary: TemporaryServer | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "PrefectServer":
        from prefect.settings import PREFECT_API_URL, temporary_settings

        self._lasting = PREFECT_API_URL.value() or (LOCAL_API if answers(LOCAL_API) else None)
        api = self._lasting or self._start().api
        self._stack.enter_context(temporary_settings({PREFECT_API_URL: api}))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def is_temporary(self) -> bool:
        """Whether nothing of it is left after the run."""
        return self._temporary is not None

    def check(self) -> None:
        """Raises RunError where a server that is not temporary does not answer, or refuses this client."""
        if self._lasting is not None:
            check_server(self._lasting, _PATIENCE_SECONDS)

    def wait(self) -> None:
        """Returns once a temporary server answers; raises RunError where it does not."""
        if self._temporary is not None:
            self._temporary.wait()

    def _start(self) -> TemporaryServer:
        from prefect.settings import (
            PREFECT_HOME,
            PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
            get_current_settings,
        )

        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        patience = float(PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value())
        self._temporary = TemporaryServer(Path(PREFECT_HOME.value()).expanduser(), patience, settings)
        self._stack.callback(self._temporary.stop)
        return self._temporary
