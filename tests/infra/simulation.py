"""Time and workers that exist in this process only: waiting takes no time, and what happens is the seed's choice."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.executor import Lost, StartedWorker, outcome_of


class SimulatedClock:
    """Passes only while somebody waits."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self._random = random.Random(seed)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.7e9 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def token(self, size: int) -> str:
        return self._random.randbytes(size).hex()


class Crash(BaseException):
    """Takes the worker's process down; what the executor finds out about it are ``why`` and ``cause``."""

    why, cause = "its process died", "work"


class NodeLost(Crash):
    """Takes the worker's machine down."""

    why, cause = "its node was lost", "node"


class OutOfMemory(Crash):
    """Has the worker killed because its machine has no memory left."""

    why, cause = "it was killed because its node ran out of memory", "memory"


class Hang(BaseException):
    """Never comes back."""


@dataclass
class Process:
    """A simulated worker: its object once it is made, when it is free, and its calls that have not ended."""

    free_at: float
    worker: object = None
    calls: list[int] = field(default_factory=list)
    dead: bool = False
    machine: int = 0


@dataclass(frozen=True)
class Call:
    process: Process
    method: str
    args: tuple


class SimulatedExecutor:
    """Workers that run one call after the other; one that raises Crash dies, one that raises Hang does not end.

    Args:
        make: Makes the worker object.
        workers: Most at a time; each has a machine of its own, numbered from 0 in the order of starting.
        clock: Whose time passes while calls are waited for.
        seconds: What each call takes.
        load_seconds: What making a worker takes.
    """

    concurrency = 1
    start_seconds = None

    def __init__(self, make: Callable[[], object], workers: int, clock, seconds=1.0, load_seconds=5.0) -> None:
        self.workers = self.at_first = workers
        self.started: list[str] = []
        self.killed: list[str] = []
        self.notices: set[int] = set()
        self.reserved: list[int | None] = []
        self.gone = False
        self._make, self._clock, self._seconds, self._load_seconds = make, clock, seconds, load_seconds
        self._numbers = itertools.count()
        self._calls: dict[int, Call] = {}
        self._due: list[tuple[float, int]] = []
        self._outcomes: dict[int, object] = {}

    def start(self) -> StartedWorker:
        number = len(self.started)
        process, name = Process(self._clock.monotonic(), machine=number), f"simulated-{number}"
        self.started.append(name)
        return StartedWorker(name, process, self._queue(process, "load", (), self._load_seconds))

    def submit(self, worker, method, *args):
        return self._queue(worker.handle, method, args, self._seconds)

    def wait(self, calls, seconds):
        if not calls:
            return []  # at once, as Ray does
        wanted, end = set(calls), self._clock.monotonic() + seconds
        for call in calls:
            if call in self._outcomes:
                return [call]
        while self._due and self._due[0][0] <= end:
            at, call = heapq.heappop(self._due)
            self._clock.now = max(self._clock.now, at)
            self._end(call)
            ended = [each for each in self._outcomes if each in wanted]
            if ended:
                return ended[:1]
        self._clock.now = max(self._clock.now, end)
        return []

    def outcome(self, call):
        return self._outcomes.pop(call)

    def kill(self, worker):
        self.killed.append(worker.name)
        worker.handle.dead = True

    def check_alive(self):
        if self.gone:
            raise RunError("the simulation is gone")

    def leaving(self):
        return frozenset(self.notices)

    def reserve_memory(self, least=None):
        self.reserved.append(least)

    def shortage(self):
        return "there are none"

    def _queue(self, process, method, args, seconds):
        process.free_at = max(process.free_at, self._clock.monotonic()) + seconds
        number = next(self._numbers)
        self._calls[number] = Call(process, method, args)
        process.calls.append(number)
        heapq.heappush(self._due, (process.free_at, number))
        return number

    def _end(self, number):
        call = self._calls.pop(number, None)
        if call is None or call.process.dead:
            return
        process = call.process
        process.calls.remove(number)
        try:
            self._outcomes[number] = outcome_of(self._perform, process, call)
        except Hang:
            process.free_at, process.dead = float("inf"), True
        except Crash as crash:
            process.dead = True
            for lost in [number, *process.calls]:
                self._outcomes[lost] = Lost(crash.why, crash.cause)

    def _perform(self, process, call):
        if call.method == "load":
            process.worker = self._make()
            return process.machine
        return getattr(process.worker, call.method)(*call.args)
