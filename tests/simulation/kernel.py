"""One thing at a time: threads of simulated processes on a simulated clock, switched where a schedule says."""

import heapq
import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from typing import Any, Protocol

from greenlet import getcurrent, greenlet

FOREVER = float("inf")
MOST_STEPS = 60_000


class Killed(BaseException):
    """Unwinds a thread whose process is dead; nothing that it does on the way has an effect."""


class Violation(AssertionError):  # noqa: N818 - a finding, not a mistake
    """An invariant did not hold.

    Attributes:
        invariant: Its name, by which a shorter schedule is recognized as failing in the same way.
    """

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(invariant, detail)
        self.invariant, self.detail = invariant, detail

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


class Process:
    """A simulated process: its threads die together.

    Attributes:
        name: Unique in the world.
        host: The machine that it runs on.
        offset: Its monotonic clock's difference from the world's.
        random: Its own chance, the same in every schedule.
        longest_pause: Seconds that a single operation of it may take, at most.
        children: Numbers what it starts.
        history: Stands for all that it has seen.
        at_end: Called once it is dead, whoever killed it.
    """

    def __init__(self, name: str, seed: object, offset: float = 0.0) -> None:
        self.name, self.offset, self.alive = name, offset, True
        self.frozen_until = 0.0
        self.longest_pause = FOREVER
        self.children = itertools.count(1)
        self.host = ""
        self.history = 0
        self.random = random.Random(f"{seed}/{name}")
        self.at_end: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return self.name

    def saw(self, what: object) -> None:
        """Adds to its history."""
        self.history = hash((self.history, what))


class Thread:
    """A thread of a process: a stack of its own, which runs only while it is switched to."""

    def __init__(self, process: Process, name: str, body: Callable[[], None], main: bool) -> None:
        self.process, self.name, self.body, self.main = process, name, body, main
        self.stack: greenlet
        self.count = 0
        self.looked = 0
        self.wake = 0.0
        self.condition: Callable[[], bool] | None = None
        self.ended = False

    def ready(self, now: float) -> bool:
        """Whether it could go on."""
        if not self.process.alive:
            return True
        if self.process.frozen_until > now:
            return False
        return self.wake <= now or (self.condition is not None and self.condition())

    def wakes(self, now: float) -> float:
        """When it can go on by itself."""
        frozen = self.process.frozen_until
        return frozen if self.condition is not None and frozen > now else max(self.wake, frozen)


class Chooser(Protocol):
    """Decides what happens at each step of each thread."""

    def action(self, kernel: "Kernel", thread: Thread, hot: int, faults: tuple[str, ...]) -> tuple[Any, ...] | None:
        """What happens before the next operation: None, or a kind of event with what it needs."""

    def dies_waiting(self, thread: Thread) -> bool:
        """Whether a thread's process is killed now that it waits."""

    def pick(self, thread: Thread, ready: list[Thread]) -> Thread:
        """Which of several threads goes on after one that waits or has ended."""


class Kernel:
    """Runs threads one at a time until all have ended.

    Time passes by ``tick`` with each step, and by as much as is needed where nobody can run.
    """

    def __init__(self, chooser: Chooser, tick: float = 0.01) -> None:
        self.now = 0.0
        self.steps = 0
        self.failure: BaseException | None = None
        self.longest_pause = FOREVER
        self.acting: Process | None = None
        self.trace: list[tuple[float, str, str, tuple[Any, ...] | None]] | None = None
        self.on_event: dict[str, Callable[[], None]] = {}
        self.tick = tick
        self._chooser = chooser
        self._threads: list[Thread] = []
        self.struck: list[str] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopping = False
        self._hub, self._home = getcurrent(), get_ident()
        self._following: Thread | None = None
        self.current: Thread = None  # type: ignore[assignment]

    @property
    def process(self) -> Process:
        """The process that runs, or whose request arrives."""
        return self.acting or self.current.process

    def spawn(self, process: Process, body: Callable[[], None], name: str | None = None, delay: float = 0.0) -> Thread:
        """A new thread; the first of a process is its main one, with which the process ends."""
        thread = Thread(process, name or process.name, body, name is None)
        thread.wake = self.now + delay
        thread.stack = greenlet(lambda: self._carry(thread), parent=self._hub)
        self._threads.append(thread)
        return thread

    def at(self, when: float, function: Callable[[], None]) -> None:
        """Calls a function, which takes no step, at a time."""
        heapq.heappush(self._timers, (when, next(self._numbers), function))

    def run(self, chooser: Chooser | None = None) -> None:
        """Runs all threads to their ends; raises what was found wrong."""
        self._chooser = chooser or self._chooser
        self._following = self._next(None) if self._threads else None
        while self._following is not None:
            self.current, self._following = self._following, None
            self.current.stack.switch()  # comes back when a thread has ended, this one or another
        if self.failure is not None:
            raise self.failure

    def step(self, operation: str, hot: int = 0, faults: tuple[str, ...] = ()) -> str | None:
        """The moment before an operation of the running thread; the fault that the operation is to meet, if any."""
        thread = self.current
        self._check_alive(thread)
        if get_ident() != self._home:  # of a pool within a process, which is waited for
            return None
        thread.count += 1
        self.steps += 1
        self.now += self.tick
        if self._timers and self._timers[0][0] <= self.now:
            self._fire()
        if self.steps > MOST_STEPS:
            self.fail(Violation("progress", f"no end after {MOST_STEPS} steps; last: {thread.name} {operation}"))
        action = self._chooser.action(self, thread, hot, faults)
        fault = None if action is None else self._happen(thread, action)
        if self.trace is not None:
            self.trace.append((self.now, thread.name, operation, action))
        return fault

    def sleep(self, seconds: float) -> None:
        """The running thread waits."""
        self.wait(None, seconds)

    def wait(self, condition: Callable[[], bool] | None, seconds: float = FOREVER) -> None:
        """The running thread waits for a condition, or for some time."""
        thread = self.current
        self._check_alive(thread)
        thread.count += 1
        if self._chooser.dies_waiting(thread):
            self.strike(thread.process)
        self._block(thread, self.now + seconds, condition)
        thread.process.saw("woke")

    def check_alive(self) -> None:
        """Raises ``Killed`` in a thread of a dead process."""
        self._check_alive(self.current)

    def kill(self, process: Process) -> None:
        """Ends a process between two of its operations."""
        self.end(process)
        self._check_alive(self.current)

    def strike(self, process: Process) -> None:
        """As :meth:`kill`, by chance."""
        self.struck.append(process.name)
        self.kill(process)

    def end(self, process: Process) -> None:
        """As :meth:`kill`, from outside of any thread."""
        if process.alive:
            process.alive = False
            for function in process.at_end:
                function()

    def fail(self, error: BaseException) -> None:
        """Ends the simulation: something is wrong."""
        self.failure = self.failure or error
        self._stopping = True
        raise Killed

    def processes(self) -> list[Process]:
        """Every process that has a thread."""
        return list({id(thread.process): thread.process for thread in self._threads}.values())

    def ready(self) -> list[Thread]:
        """The threads that could run now, the running one left out."""
        return [thread for thread in self._threads if thread is not self.current and thread.ready(self.now)]

    def _happen(self, thread: Thread, action: tuple[Any, ...]) -> str | None:
        kind = action[0]
        if kind == "switch":
            for other in self._threads:
                if other.name == action[1] and other is not thread and other.ready(self.now):
                    self._hand_over(thread, other)
                    break
        elif kind == "stall":
            self._block(thread, self.now + action[1], None)
        elif kind == "freeze":
            thread.process.frozen_until = self.now + action[1]
            self._block(thread, 0.0, None)
        elif kind == "kill":
            self.strike(thread.process)
        elif kind == "kill_sent":
            return str(kind)
        elif kind in self.on_event:
            self.on_event[kind]()
            self._check_alive(thread)
        else:
            return str(kind)
        return None

    def _check_alive(self, thread: Thread) -> None:
        if self._stopping or not thread.process.alive:
            raise Killed

    def _block(self, thread: Thread, wake: float, condition: Callable[[], bool] | None) -> None:
        thread.wake, thread.condition = wake, condition
        following = self._next(thread)
        if following is not thread:
            self._hand_over(thread, following)
        thread.wake, thread.condition = 0.0, None
        self._check_alive(thread)

    def _hand_over(self, thread: Thread, other: Thread) -> None:
        self.current = other
        other.stack.switch()
        self._check_alive(thread)

    def _next(self, thread: Thread | None) -> Thread:
        """The thread to go on with, once one can; time passes until then."""
        while True:
            ready = self._threads if self._stopping else [each for each in self._threads if each.ready(self.now)]
            if ready:
                if len(ready) == 1 or thread is None or self._stopping:
                    return ready[0]
                with suppress(Killed):
                    return self._chooser.pick(thread, ready)
                continue
            until = min(each.wakes(self.now) for each in self._threads)
            if self._timers:
                until = min(until, self._timers[0][0])
            if until == FOREVER:
                waiting = ", ".join(each.name for each in self._threads)
                self.failure = self.failure or Violation("progress", f"all wait for each other: {waiting}")
                self._stopping = True
                continue
            self.now = max(self.now, until)
            self._fire()

    def _fire(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            with suppress(Killed):
                heapq.heappop(self._timers)[2]()

    def _carry(self, thread: Thread) -> None:
        """The life of a thread, once it is its turn for the first time."""
        try:
            self._check_alive(thread)
            thread.wake = 0.0
            thread.body()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - reported by run
            self.failure = self.failure or error
            self._stopping = True
        thread.ended = True
        thread.count += 1
        self._threads.remove(thread)
        if thread.main:
            self.end(thread.process)
        if self._threads:
            self._following = self._next(thread)
