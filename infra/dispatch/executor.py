"""The port between the scheduler and whatever runs workers: Ray, or a simulation in this process."""

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.storage.errors import is_transient
from barycenter.infra.userinfo import without_userinfo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerAllocation:
    """How many workers a stage has, and what each reserves.

    Attributes:
        workers: Actors to start, at most.
        threads: Threads that each worker's numerical libraries use.
        gpus_per_worker: GPUs (or a fraction of one) reserved for each.
        cpus_per_worker: CPUs reserved for each in Ray's books; by default ``threads``. Less where more workers were
            asked for than there are CPUs.
        memory: Bytes of memory reserved for each; 0 for none.
        at_first: Workers to ask for at once, more as these have started; by default all.
    """

    workers: int
    threads: int
    gpus_per_worker: float = 0.0
    cpus_per_worker: float | None = None
    memory: int = 0
    at_first: int | None = None

    @property
    def cpus(self) -> float:
        """CPUs reserved for each worker."""
        return self.threads if self.cpus_per_worker is None else self.cpus_per_worker


@dataclass(frozen=True)
class Done:
    """A call returned."""

    value: Any


@dataclass(frozen=True)
class Failure:
    """A call raised: the exception as plain text, without pickling it.

    Attributes:
        line: One line for the user.
        environment: The surroundings are at fault (storage, disk, network), not the rows.
        job_key: Key of the job file that is wrong, if that is what it was.
    """

    line: str
    environment: bool
    job_key: str | None = None

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Says of an exception whether the surroundings are at fault or the rows; logs its traceback."""
        log.debug("%s", without_userinfo("".join(traceback.format_exception(error))))
        if isinstance(error, JobError):
            return cls(error.problem, environment=True, job_key=error.key)
        if isinstance(error, RunError):
            return cls(str(error), environment=True)
        text = without_userinfo(" ".join(str(error).split()))[:500]
        outside = is_transient(error) or (isinstance(error, OSError) and error.errno is not None)
        return cls(f"{type(error).__name__}: {text}" if text else type(error).__name__, environment=outside)

    def error(self) -> RunError | JobError:
        """The exception that ends the run."""
        return RunError(self.line) if self.job_key is None else JobError(self.job_key, self.line)


Cause: TypeAlias = Literal["work", "node", "memory"]
"""What took a worker away: perhaps what it was at; its machine; that its machine had no memory left."""


@dataclass(frozen=True)
class Lost:
    """The worker died before a call of it ended."""

    why: str
    cause: Cause = "work"


Outcome: TypeAlias = Done | Failure | Lost


def outcome_of(function: Callable[..., Any], *args: Any) -> Done | Failure:
    """Calls a function of a worker; what it raises becomes a :class:`Failure`."""
    try:
        return Done(function(*args))
    except Exception as error:  # noqa: BLE001 - reported to the driver
        return Failure.of(error)


@dataclass(frozen=True)
class StartedWorker:
    """A worker that was started.

    Attributes:
        name: For messages, unique in the run.
        handle: The executor's own.
        loading: The call that ends when the worker's ``__init__`` has returned; its value says on which machine.
    """

    name: str
    handle: Any
    loading: Any


class Executor(Protocol):
    """Starts workers of one class and runs calls on them; calls are opaque, hashable values.

    It retries nothing: a worker that died stays dead.
    """

    @property
    def workers(self) -> int:
        """Workers that may run at a time."""

    @property
    def at_first(self) -> int:
        """Workers to ask for at once; more as these have started."""

    @property
    def start_seconds(self) -> float | None:
        """Seconds in which the first worker must have started; None for the scheduler's own limit."""

    @property
    def concurrency(self) -> int:
        """Units of work that one worker runs at a time."""

    def start(self) -> StartedWorker:
        """Starts one more worker, without waiting for it."""

    def submit(self, worker: StartedWorker, method: str, *args: Any) -> Any:
        """Queues a method call on a worker; returns the call."""

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """The first call that has ended, as a list; empty where none has after ``seconds``."""

    def outcome(self, call: Any) -> Outcome:
        """What became of a call that has ended."""

    def kill(self, worker: StartedWorker) -> None:
        """Ends a worker, whatever it is doing; one that is gone already is no error."""

    def check_alive(self) -> None:
        """Raises ``RunError`` if no worker can run any more because the executor itself is gone."""

    def leaving(self) -> frozenset[Any]:
        """The machines that are about to go."""

    def reserve_memory(self, least: int | None = None) -> None:
        """Workers started from now on get so many bytes at least, by default half as many again, where any were."""

    def shortage(self) -> str:
        """What a worker needs, what there is and what may come, for the message that none could start yet."""
