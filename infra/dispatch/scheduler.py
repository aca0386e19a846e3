"""The driver's loop: units of work from their source to the workers, until each is done or given up."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from barycenter.infra.clock import current_clock
from barycenter.infra.deadline import check_deadline
from barycenter.infra.dispatch.executor import Executor, Failure
from barycenter.infra.dispatch.poison_search import PoisonSearch
from barycenter.infra.dispatch.pool import Finished, LostWorker, WorkerPool
from barycenter.infra.dispatch.retry import Limits, RetryPolicy
from barycenter.infra.dispatch.shares import Share
from barycenter.infra.dispatch.units import Attempts, Quarantined, Work, WorkSource
from barycenter.infra.words import counted

log = logging.getLogger(__name__)

_DEFAULT_LIMITS = Limits()
_MOST_MOVES = 10


class Scheduler:
    """Runs units of work on the workers of an executor; see :func:`barycenter.infra.dispatch.api.dispatch`."""

    def __init__(
        self,
        work: Iterable[Work],
        executor: Executor,
        on_done: Callable[[Work, Any], None],
        without_rows: Callable[[Work, tuple[int, ...]], Work] | None = None,
        first: Sequence[Work] = (),
        limits: Limits = _DEFAULT_LIMITS,
        share: Share | None = None,
        on_lost: Callable[[LostWorker], None] | None = None,
        on_running: Callable[[int], None] | None = None,
    ) -> None:
        self._source = WorkSource(work, first)
        self._executor, self._share = executor, share
        self._on_lost, self._on_running = on_lost, on_running
        self._most, self._in_flight = executor.workers, limits.in_flight
        self._pool = WorkerPool(executor, limits, current_clock(), self._waits_for_others)
        self._retry = RetryPolicy(limits.attempts, executor.at_first)
        self._running = 0
        self._on_done, self._without_rows = on_done, without_rows
        self._most_searches = limits.searches
        self._queue: deque[Attempts] = deque()
        self._quarantined: list[Quarantined] = []

    def run(self) -> list[Quarantined]:
        """Works until nothing is left; what was given up."""
        try:
            self._refill()
            while self._queue or self._pool.busy:
                check_deadline()
                workers = self._workers()
                self._pool.grow(min(workers, len(self._queue) + self._pool.busy))
                if not self._must_wait():
                    self._pool.assign(self._queue, workers)
                if not self._queue and self._source.at_end:
                    self._pool.release_idle()
                self._pool.shrink(workers)
                self._note_running()
                for result in self._pool.wait():
                    if isinstance(result, LostWorker):
                        self._lost(result)
                    else:
                        self._finished(result)
                self._refill()
            return self._quarantined
        finally:
            self._pool.close()

    def _note_running(self) -> None:
        """Says how many workers have started, where that has changed."""
        if self._pool.running != self._running:
            self._running = self._pool.running
            if self._share is not None:
                self._share.note_running(self._running)
            if self._on_running is not None:
                self._on_running(self._running)

    def _waits_for_others(self) -> bool:
        return self._share is not None and self._share.others_run()

    def _workers(self) -> int:
        return self._most if self._share is None else min(self._most, self._share.workers())

    def _must_wait(self) -> bool:
        """Whether the first unit, which measures, waits for a worker, or for another dispatch's first unit."""
        if self._share is None or not self._source.at_first:
            return False
        return not (self._pool.running and self._share.may_try())

    def _refill(self) -> None:
        """Asks for no more units than the workers can hold."""
        self._queue.extend(self._source.take(self._workers() * self._in_flight - len(self._queue)))

    def _finished(self, result: Finished) -> None:
        unit, outcome = result.unit, result.outcome
        if isinstance(outcome, Failure):
            if outcome.job_key is not None:
                raise outcome.error()
            self._failed(unit, outcome.line, outcome)
            return
        self._retry.succeeded()
        if unit.search is not None and unit.trial is not None:
            unit.search.record(unit.trial, failed=False)
            self._search(unit, unit.search)
            return
        self._source.done(unit.work)
        log.info("%s done", unit.work.id, extra={"shard": unit.work.id, "rows": unit.work.rows})
        self._on_done(unit.work, outcome.value)

    def _lost(self, worker: LostWorker) -> None:
        """Charges the unit that a dead worker was at; of several none, but each is tried by itself."""
        if self._on_lost is not None:
            self._on_lost(worker)
        if self._share is not None and self._source.at_first:
            self._share.release_trial()
        was_alone = worker.cause == "memory" and not self._make_room()
        if not was_alone and self._is_blameless(worker):
            at_work = worker.held[: worker.at_work]
            for unit in at_work:
                unit.moves += 1
            log.warning("worker %s was lost: %s; its work goes to another", worker.name, worker.why)
            self._queue.extendleft(reversed(worker.held))
            if (at_work or not self._pool.running) and not worker.expected:
                self._retry.lost(worker.why)
            return
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

    def _make_room(self) -> bool:
        """After memory ran out: more of it for each worker, and fewer of them; False where the lost one was alone."""
        self._executor.reserve_memory()
        fewer = min(self._most, self._pool.running + 1) - 1
        if fewer < 1 and not self._waits_for_others():
            return False
        self._most = max(1, fewer)
        log.warning("memory ran out: from now on %s side by side", counted(self._most, "worker"))
        return True

    def _is_blameless(self, worker: LostWorker) -> bool:
        """Whether a worker was lost through no fault of its work, as far as can be known after a few times."""
        return worker.cause != "work" and all(unit.moves < _MOST_MOVES for unit in worker.held[: worker.at_work])

    def _failed(self, unit: Attempts, why: str, failure: Failure | None) -> None:
        unit.tries += 1
        unit.detail = why
        outside = failure is not None and failure.environment
        if unit.search is not None and unit.trial is not None and not outside:
            unit.search.record(unit.trial, failed=True)
            self._search(unit, unit.search)
        elif self._retry.again(unit, failure):
            self._queue.append(unit)
        elif self._without_rows is None or unit.rows_at_first < 1 or unit.searches >= self._most_searches:
            self._give_up(unit)
        else:
            log.warning("%s failed %d times (%s); searching for the row", unit.work.id, unit.failures, why)
            unit.searches, unit.failures = unit.searches + 1, 0
            unit.search = PoisonSearch.over([row for row in range(unit.rows_at_first) if row not in unit.removed])
            self._search(unit, unit.search)

    def _search(self, unit: Attempts, search: PoisonSearch) -> None:
        """Tries the next rows that the search asks for, or ends it: the unit is done without those that it found."""
        unit.trial = search.next_trial()
        if unit.trial is not None:
            self._queue.appendleft(unit)
        elif search.gave_up:
            self._give_up(unit)
        else:
            if search.guilty and self._without_rows is not None:
                rows = tuple(sorted(search.guilty))
                self._quarantine(unit.quarantined(rows))
                unit.removed += rows
                unit.work = self._without_rows(unit.work, rows)
                unit.failures = 0
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
