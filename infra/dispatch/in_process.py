"""One worker in the calling process: for tests, notebooks and debuggers."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from barycenter.infra.blas import limited_threads
from barycenter.infra.clock import current_clock
from barycenter.infra.dispatch.executor import Outcome, StartedWorker, outcome_of
from barycenter.infra.dispatch.units import Worker


@dataclass(eq=False)
class _Call:
    function: Callable[[], Any]
    outcome: Outcome | None = None


class InProcessExecutor:
    """An :class:`~barycenter.infra.dispatch.executor.Executor` that runs a call when it is waited for.

    What the worker is made of and given is pickled, as on a cluster. A call that never returns is never given up.
    The numerical libraries have ``threads`` threads while a call runs.
    """

    workers = at_first = concurrency = 1
    start_seconds = None

    def __init__(self, worker: type[Worker], args: tuple[Any, ...], threads: int) -> None:
        self._worker, self._args, self._threads = worker, pickle.dumps(args), threads

    def start(self) -> StartedWorker:
        """A worker that is made when its loading is waited for."""
        made: list[Any] = []
        loading = _Call(lambda: made.append(self._worker(*pickle.loads(self._args))))  # noqa: S301 - our own bytes
        return StartedWorker(f"in-process-{current_clock().token(3)}", made, loading)

    def submit(self, worker: StartedWorker, method: str, *args: Any) -> _Call:
        """Queues a method call on the worker."""
        pickled = pickle.dumps(args)
        return _Call(lambda: getattr(worker.handle[0], method)(*pickle.loads(pickled)))  # noqa: S301 - our own bytes

    def wait(self, calls: Sequence[_Call], seconds: float) -> list[_Call]:
        """Runs the first of the calls, unless one has ended."""
        ended = next((call for call in calls if call.outcome is not None), None)
        if ended is None and calls and seconds:
            ended = calls[0]
            with limited_threads(self._threads):
                ended.outcome = outcome_of(ended.function)
        return [ended] if ended is not None else []

    def outcome(self, call: _Call) -> Outcome:
        """What became of a call that has ended."""
        if call.outcome is None:
            raise RuntimeError("a call's outcome was asked for before it had ended")
        return call.outcome

    def kill(self, worker: StartedWorker) -> None:
        """Drops the worker."""
        worker.handle.clear()

    def check_alive(self) -> None:
        """This process is alive."""

    def leaving(self) -> frozenset[Any]:
        """This process stays where it is."""
        return frozenset()

    def reserve_memory(self, least: int | None = None) -> None:
        """Nothing is reserved here."""

    def shortage(self) -> str:
        """The end of the message that no worker started; here it can only say that one starts at once."""
        return "this process starts one at once"
