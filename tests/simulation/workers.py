"""Workers in simulated processes: slow, killed, hung, or working on after their driver has given them up."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from barycenter.infra.dispatch.executor import Lost, Outcome, StartedWorker, outcome_of
from tests.simulation.kernel import Kernel, Process

LOAD_SECONDS = 2.0
ORPHAN_SECONDS = 40.0


class Call:
    """A call on its way."""

    def __init__(self, function: Callable[..., Any] | None, args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args
        self.outcome: Outcome | None = None


class _Worker:
    """A worker's process, its object once it is made, and its calls."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.object: Any = None
        self.calls: deque[Call] = deque()
        self.at_work = False


class SimulatedExecutor:
    """An :class:`~barycenter.infra.dispatch.executor.Executor` over processes of a kernel.

    A killed driver's workers work on for up to 40 seconds. With ``lingering``, so does a worker that is given up.
    """

    concurrency = 1
    start_seconds = None

    def __init__(
        self,
        kernel: Kernel,
        make: Callable[[], object],
        workers: int,
        seed: object,
        lingering: float = 0.0,
        unit_seconds: float = 1.0,
    ) -> None:
        self.workers = self.at_first = workers
        self._kernel, self._make, self._seed, self._lingering = kernel, make, seed, lingering
        self._unit_seconds = unit_seconds
        self._driver = kernel.process
        self._started = 0
        self._all: list[Process] = []
        self._driver.at_end.append(self._orphan)

    def start(self) -> StartedWorker:
        self._kernel.check_alive()
        name = f"{self._driver.name}.worker{next(self._driver.children)}"
        worker = _Worker(Process(name, self._seed, self._driver.offset))
        self._all.append(worker.process)
        loading = Call(None, ())
        worker.calls.append(loading)
        worker.process.at_end.append(lambda: self._lose(worker))
        self._kernel.spawn(worker.process, lambda: self._work(worker))
        return StartedWorker(name, worker, loading)

    def submit(self, worker: StartedWorker, method: str, *args: Any) -> Call:
        self._kernel.check_alive()
        call = Call(getattr(worker.handle.object, method), args)
        if worker.handle.process.alive:
            worker.handle.calls.append(call)
        else:
            call.outcome = Lost("its process died")
        return call

    def wait(self, calls: Sequence[Call], seconds: float) -> list[Call]:
        if seconds:
            self._kernel.wait(lambda: any(call.outcome is not None for call in calls), seconds)
        return [call for call in calls if call.outcome is not None][:1]

    def outcome(self, call: Call) -> Outcome:
        assert call.outcome is not None
        return call.outcome

    def kill(self, worker: StartedWorker) -> None:
        if not self._driver.alive:
            return
        process: Process = worker.handle.process
        if self._lingering and worker.handle.at_work:
            while len(worker.handle.calls) > 1:
                worker.handle.calls.pop()
            self._kernel.at(self._kernel.now + self._lingering, lambda: self._kernel.end(process))
        else:
            self._kernel.end(process)

    def check_alive(self) -> None:
        return

    def leaving(self) -> frozenset[Any]:
        return frozenset()

    def reserve_memory(self, least: int | None = None) -> None:
        del least

    def shortage(self) -> str:
        return "there are none"

    def _work(self, worker: _Worker) -> None:
        random = worker.process.random
        while True:
            self._kernel.wait(lambda: bool(worker.calls))
            call, worker.at_work = worker.calls[0], True
            if call.function is None:
                self._kernel.sleep(LOAD_SECONDS)
                outcome = outcome_of(lambda: setattr(worker, "object", self._make()))
            else:
                self._kernel.sleep(random.uniform(0, 2 * self._unit_seconds))
                outcome = outcome_of(call.function, *call.args)
            self._kernel.check_alive()  # it may have died after its last step
            worker.calls.popleft()
            call.outcome, worker.at_work = outcome, False

    def _lose(self, worker: _Worker) -> None:
        for call in worker.calls:
            call.outcome = Lost("its process died")
        worker.calls.clear()

    def _orphan(self) -> None:
        """The driver is dead; its workers find out one by one."""
        for process in self._all:
            if process.alive:
                after = self._driver.random.uniform(0, ORPHAN_SECONDS)
                self._kernel.at(self._kernel.now + after, lambda process=process: self._kernel.end(process))  # type: ignore[misc]
