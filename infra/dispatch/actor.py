"""The worker's side of dispatch: a Ray actor that holds one worker object and reports failures as plain data."""

import logging
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from ray import cloudpickle

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.storage.errors import is_transient

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """An exception as plain text, without pickling it.

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
        """Sorts an exception."""
        log.debug("%s", "".join(traceback.format_exception(error)))
        if isinstance(error, JobError):
            return cls(error.problem, environment=True, job_key=error.key)
        if isinstance(error, RunError):
            return cls(str(error), environment=True)
        text = " ".join(str(error).split())[:500]
        outside = is_transient(error) or (isinstance(error, OSError) and error.errno is not None)
        return cls(f"{type(error).__name__}: {text}" if text else type(error).__name__, environment=outside)

    def error(self) -> RunError | JobError:
        """The exception that ends the run."""
        return RunError(self.line) if self.job_key is None else JobError(self.job_key, self.line)


@dataclass(frozen=True)
class Done:
    """What a worker returned."""

    value: Any


class Host:
    """Holds one worker object in its own process.

    Threads are pinned before the worker's libraries are imported: its class arrives pickled.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._worker: Any = None
        for variable in _THREAD_VARIABLES:
            os.environ[variable] = str(threads)

    def load(self, pickled: bytes, credentials: dict[str, str]) -> Done | Failure:
        """Makes the worker, once; it sees the driver's storage credentials in its environment."""
        os.environ.update(credentials)
        try:
            worker, args = cloudpickle.loads(pickled)
            self._worker = worker(*args)
            self._pin()
        except Exception as error:  # noqa: BLE001 - reported to the driver
            return Failure.of(error)
        return Done(None)

    def run(self, payload: Any) -> Done | Failure:
        """The worker's ``run``."""
        try:
            return Done(self._worker.run(payload))
        except Exception as error:  # noqa: BLE001 - reported to the driver
            return Failure.of(error)

    def probe(self, payload: Any, rows: tuple[int, ...]) -> Done | Failure:
        """The worker's ``probe``."""
        try:
            self._worker.probe(payload, rows)
        except Exception as error:  # noqa: BLE001 - reported to the driver
            return Failure.of(error)
        return Done(None)

    def _pin(self) -> None:
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(self._threads)
        if "numpy" in sys.modules:
            from threadpoolctl import threadpool_limits

            threadpool_limits(self._threads)
