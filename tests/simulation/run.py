"""Many seeds: played, checked, and where one fails, shortened."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tests.simulation.kernel import Chooser, Violation
from tests.simulation.scenario import Scenario, afterwards, history, start
from tests.simulation.schedule import Action, Actions, Explorer, Replay, shortest
from tests.simulation.world import World, entered, simulated

Trace = list[tuple[float, str, str, Action | None]]


@dataclass
class Failure:
    """A seed that failed, as short as it could be made."""

    seed: int
    error: BaseException
    scenario: Scenario
    actions: Actions

    @property
    def invariant(self) -> str:
        return kind_of(self.error)


@dataclass
class Tally:
    """What many seeds came to."""

    seeds: int = 0
    steps: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        for mine, theirs in ((self.faults, other.faults), (self.checks, other.checks), (self.outcomes, other.outcomes)):
            mine.update(theirs)
        self.failures += other.failures


def kind_of(error: BaseException) -> str:
    """What failed, for comparing schedules."""
    return error.invariant if isinstance(error, Violation) else type(error).__name__


def play(
    scenario: Scenario, seed: object, chooser: Chooser, tally: Tally | None = None, trace: Trace | None = None
) -> None:
    """Plays one schedule to its end and beyond; raises what was found wrong."""
    world = World(
        scenario.kind, seed, chooser, history(scenario.kind, scenario.corpus, scenario.before), page=scenario.page
    )
    world.kernel.trace = trace
    with entered(world):
        try:
            start(world, scenario)
            world.kernel.run()
            afterwards(world, scenario)
        finally:
            if tally is not None:
                tally.steps += world.kernel.steps
                tally.checks.update(world.oracle.checks)
                tally.outcomes.update(world.outcomes)


def explore(first: int, count: int, most_failures: int = 5) -> Tally:
    """Plays seeds one after the other."""
    tally = Tally()
    began = time.perf_counter()
    with simulated():
        for seed in range(first, first + count):
            scenario, chooser = Scenario.of(seed), Explorer(seed)
            tally.seeds += 1
            try:
                play(scenario, seed, chooser, tally)
            except Exception as error:  # noqa: BLE001 - whatever a seed brings up is a finding
                tally.failures.append(Failure(seed, error, scenario, chooser.actions))
            tally.faults.update(chooser.counts)
            if len(tally.failures) >= most_failures:
                break
    tally.seconds = time.perf_counter() - began
    return tally


def explore_in_processes(first: int, count: int, workers: int) -> Tally:
    """As :func:`explore`, with several processes at a time."""
    tally, began = Tally(), time.perf_counter()
    size = min(500, -(-count // workers))
    with ProcessPoolExecutor(workers) as pool:
        parts = [
            pool.submit(explore, start, min(size, first + count - start)) for start in range(first, first + count, size)
        ]
        for part in parts:
            tally.add(part.result())
    tally.seconds = time.perf_counter() - began
    return tally


def first_failure(count: int, planted: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Failure | None:
    """The first of so many seeds that fails, with a fault planted into the code."""
    with planted():
        found = explore(0, count, most_failures=1).failures
    return found[0] if found else None


def shorten(failure: Failure) -> Failure:
    """A schedule with fewer events and processes that fails in the same way."""
    scenario, actions = failure.scenario, dict(failure.actions)
    error = failure.error

    def fails(scenario: Scenario, actions: Actions) -> bool:
        nonlocal error
        try:
            play(scenario, failure.seed, Replay(actions))
        except Exception as other:  # noqa: BLE001 - as above
            if kind_of(other) == failure.invariant:
                error = other
                return True
        return False

    with simulated():
        if not fails(scenario, actions):
            return failure
        for _ in range(2):
            actions = dict(shortest(list(actions.items()), partial(_fails_with, fails, scenario)))
            for actor in scenario.actors:
                without = replace(scenario, actors=tuple(each for each in scenario.actors if each != actor))
                if len(without.actors) and fails(without, actions):
                    scenario = without
    return Failure(failure.seed, error, scenario, actions)


def _fails_with(
    fails: Callable[[Scenario, Actions], bool], scenario: Scenario, items: list[tuple[str, Action]]
) -> bool:
    return fails(scenario, dict(items))


def trace_of(failure: Failure) -> list[str]:
    """What happened, line by line: one for each stretch of one thread."""
    trace: Trace = []
    with simulated(), suppress(Exception):
        play(failure.scenario, failure.seed, Replay(failure.actions), trace=trace)
    lines: list[str] = []
    last = None
    for now, thread, operation, action in trace:
        if action is None and thread == last:
            lines[-1] += f", {operation}" if len(lines[-1]) < 600 else "" if lines[-1].endswith("...") else ", ..."
        else:
            event = f" [{' '.join(map(str, action))}]" if action is not None else ""
            lines.append(f"{now:9.2f} {thread}{event}: {operation}")
        last = thread
    return lines[-60:]
