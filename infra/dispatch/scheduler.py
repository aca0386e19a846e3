"""The driver's loop: units of work from their source to the workers, until each is done or given up."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from barycenter.infra.clock import current_clock
from barycenter.infra.dispatch.executor import Done, Executor, Failure
from barycenter.infra.dispatch.isolation import PoisonIsolation, Step, WithoutRows
from barycenter.infra.dispatch.pool import Finished, LostWorker, WorkerPool
from barycenter.infra.dispatch.retry import Limits, RetryPolicy
from barycenter.infra.dispatch.units import Attempts, Quarantined, Work, WorkSource

log = logging.getLogger(__name__)

_DEFAULT_LIMITS = Limits()


class Scheduler:
    """Runs units of work on the workers of an executor; see :func:`barycenter.infra.dispatch.api.dispatch`.

    Args:
        work: Units of work.
        executor: Runs the workers.
        on_done: Called with each unit done and what its worker returned.
        without_rows: A unit without some of its rows, where poisoned rows are to be searched for.
        first: Units of which one must be done before all others.
        limits: When to give up.
    """

    def __init__(
        self,
        work: Iterable[Work],
        executor: Executor,
        on_done: Callable[[Work, Any], None],
        without_rows: WithoutRows | None = None,
        first: Sequence[Work] = (),
        limits: Limits = _DEFAULT_LIMITS,
    ) -> None:
        self._source = WorkSource(work, first)
        self._workers = executor.workers
        self._room = executor.workers * limits.in_flight
        self._pool = WorkerPool(executor, limits, current_clock())
        self._retry = RetryPolicy(limits.attempts, executor.workers)
        self._isolation = PoisonIsolation(without_rows, limits.searches)
        self._on_done = on_done
        self._queue: deque[Attempts] = deque()
        self._quarantined: list[Quarantined] = []

    def run(self) -> list[Quarantined]:
        """Works until nothing is left; what was given up."""
        try:
            self._refill()
            while self._queue or self._pool.busy:
                self._pool.grow(min(self._workers, len(self._queue) + self._pool.busy))
                self._pool.assign(self._queue)
                if not self._queue and self._source.at_end:
                    self._pool.release_idle()
                for result in self._pool.wait():
                    if isinstance(result, LostWorker):
                        self._lost(result)
                    else:
                        self._finished(result)
                self._refill()
            return self._quarantined
        finally:
            self._pool.close()

    def _refill(self) -> None:
        """Asks for no more units than the workers can hold."""
        self._queue.extend(self._source.take(self._room - len(self._queue)))

    def _finished(self, result: Finished) -> None:
        unit, outcome = result.unit, result.outcome
        if isinstance(outcome, Failure):
            if outcome.job_key is not None:
                raise outcome.error()
            self._failed(unit, outcome.line, outcome)
            return
        self._retry.succeeded()
        if unit.trial is not None:
            self._follow(unit, self._isolation.record(unit, failed=False))
        else:
            self._done(unit.work, outcome)

    def _done(self, work: Work, outcome: Done) -> None:
        self._source.done(work)
        log.info("%s done", work.id, extra={"shard": work.id, "rows": work.rows})
        self._on_done(work, outcome.value)

    def _lost(self, worker: LostWorker) -> None:
        """Charges the unit that a dead worker was at; of several none, but each is tried by itself."""
        held = worker.held
        several = worker.at_work > 1
        self._queue.extendleft(reversed(held if several else held[1:]))
        at = f" at {held[0].work.id}" if held else ""
        log.warning("worker %s was lost%s: %s", worker.name, at, worker.why)
        if not held or held[0].trial is None:
            self._retry.lost(worker.why)
        if several:
            for unit in held:
                unit.alone = True
        elif held:
            self._failed(held[0], worker.why, None)

    def _failed(self, unit: Attempts, why: str, failure: Failure | None) -> None:
        unit.tries += 1
        unit.detail = why
        if unit.trial is not None and not (failure is not None and failure.environment):
            self._follow(unit, self._isolation.record(unit, failed=True))
        elif self._retry.again(unit, failure):
            self._queue.append(unit)
        else:
            self._follow(unit, self._isolation.begin(unit))

    def _follow(self, unit: Attempts, step: Step) -> None:
        """Does what the search for poisoned rows asks for."""
        if step is Step.TRY_ROWS:
            self._queue.appendleft(unit)
        elif step is Step.GIVE_UP:
            self._give_up(unit)
        else:
            if step is Step.ROWS_FOUND and unit.search is not None:
                rows = tuple(sorted(unit.search.guilty))
                self._quarantine(unit.quarantined(rows))
                self._isolation.remove(unit, rows)
            else:
                self._retry.once_more(unit)
            self._queue.append(unit)

    def _give_up(self, unit: Attempts) -> None:
        replacement = self._source.replacement(unit.work)
        if replacement is not None:
            log.warning("%s failed %d times (%s); it is done in another way", unit.work.id, unit.tries, unit.detail)
            self._queue.append(replacement)
        else:
            self._quarantine(unit.quarantined())

    def _quarantine(self, quarantined: Quarantined) -> None:
        log.warning("quarantined %s %s: %s", quarantined.id, quarantined.rows or "(whole)", quarantined.detail)
        self._quarantined.append(quarantined)
