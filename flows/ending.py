"""How a flow run ends: in a state whose message says what happened and what to do."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from prefect import State
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Crashed, Failed

from barycenter.fusion.errors import BarycenterError, BusyError, DeadlineError, RunError
from barycenter.infra.logs import log_to_page
from barycenter.infra.userinfo import showable
from barycenter.tasks.observability.events import events_of, run_failed
from barycenter.tasks.observability.run_page import reporting

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

GO_ON = "what is done stays done: run again to go on where this stopped"


@dataclass(frozen=True)
class Ending:
    """How the work of a run came to its end.

    Attributes:
        result: What it gave.
        error: What it raised instead.
        state: The state that Prefect gets, unless the result or the error makes it.
    """

    result: Any = None
    error: BaseException | None = None
    state: State[Any] | None = None


class Attendant(Protocol):
    """Whoever waits for a run in its own process."""

    @property
    def cancelled(self) -> bool:
        """Whether the run was asked to stop in Prefect."""

    def began(self, flow_run: Any) -> None:
        """Called in the run, before its work."""

    def ended(self, ending: Ending) -> None:
        """Called in the run, after its work and before Prefect gets its state."""


_attendant: ContextVar[Attendant | None] = ContextVar("attendant", default=None)


@contextmanager
def attended(by: Attendant) -> Iterator[None]:
    """Runs that start in the block are attended: an interruption ends them in a state, too."""
    token = _attendant.set(by)
    try:
        yield
    finally:
        _attendant.reset(token)


def reported(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a flow's function report to the page of its run, and end in a state that says why.

    A failure that the package knows is ``Failed`` with its one line; where ``output.busy`` is ``skip`` and another
    process holds the output, the run is ``Completed`` by the name of Skipped. Prefect logs no traceback of either.
    Called outside of a flow run the function is itself.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        return _report(function, args, kwargs)  # all that is pickled with a served flow, so it refers to nothing else

    return run


def _report(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a flow's function gives, or the state that its run is to end in."""
    by, context = _attendant.get(), FlowRunContext.get()
    if context is None:
        return function(*args, **kwargs)
    with reporting(), events_of(_job_name(context.parameters)):
        if by is not None:
            by.began(context.flow_run)
        ending = _ending(function, args, kwargs, by)
    if by is not None:
        by.ended(ending)
    if ending.state is not None:
        return ending.state
    if ending.error is not None:
        raise ending.error
    return ending.result


def _ending(function: Callable[..., Any], args: Any, kwargs: Any, by: Attendant | None) -> Ending:
    try:
        return Ending(function(*args, **kwargs))
    except BusyError as error:
        if not error.skip:
            return _failed(error)
        log_to_page(log, logging.WARNING, f"skipped: {error}")
        return Ending(state=Completed(name="Skipped", message=str(error)))
    except BarycenterError as error:
        return _failed(error)
    except (KeyboardInterrupt, TerminationSignal) as error:
        if by is None:
            raise
        return _interrupted(error, by)
    except Exception as error:  # noqa: BLE001 - Prefect shows its traceback
        run_failed(error)
        return Ending(error=error)


class _SaidOnce(logging.Filter):
    """Drops what Prefect's engines log of an error that is the run's own line, and of a stage that is interrupted."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record says something new."""
        error = record.exc_info[1] if record.exc_info else None
        interrupted = str(record.msg).startswith("Crash detected! Execution was aborted by")
        return not isinstance(error, BarycenterError) and not (interrupted and record.name == "prefect.task_runs")


for _name in ("prefect.engine", "prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_SaidOnce())


def _job_name(parameters: dict[str, Any] | None) -> str:
    """The job that a flow was given: the name of one, or the path of its file; else the data set that it works on."""
    given = (parameters or {}).get("job") or (parameters or {}).get("dataset", "")
    return str(getattr(given, "name", given))


def _failed(error: BarycenterError) -> Ending:
    log_to_page(log, logging.ERROR, str(error))
    run_failed(error)
    name = "TimedOut" if isinstance(error, DeadlineError) else None  # as Prefect calls a flow's own
    return Ending(error=error, state=Failed(name=name, message=showable(str(error)), data=error))


def _interrupted(error: BaseException, by: Attendant) -> Ending:
    if by.cancelled:
        message = f"cancelled in Prefect; {GO_ON}"
        return Ending(error=RunError(f"the run was {message}"), state=Cancelled(message=message))
    stopped = Crashed if isinstance(error, TerminationSignal) else Cancelled
    by_what = "SIGTERM" if stopped is Crashed else "Ctrl-C"
    return Ending(error=KeyboardInterrupt(), state=stopped(message=f"stopped by {by_what}; {GO_ON}"))
