"""The driver's side of dispatch: one loop around ``ray.wait``."""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.actor import Done, Failure, Host
from barycenter.infra.dispatch.poison_search import Hunt
from barycenter.infra.dispatch.units import Limits, Quarantined, Work
from barycenter.infra.names import identifier
from barycenter.infra.ray.connection import WorkerPlan
from barycenter.infra.storage.credentials import in_environment

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_CHECK_SECONDS = 3.0
_FRUITLESS_LOSSES = 6


@dataclass
class _Item:
    """A unit of work on its way: how often it failed, the search for its poisoned rows, whether it must run alone."""

    work: Work
    total: int
    failures: int = 0
    tries: int = 0
    detail: str = ""
    removed: tuple[int, ...] = ()
    hunts: int = 0
    hunt: Hunt | None = None
    probe: tuple[int, ...] | None = None
    alone: bool = False

    @classmethod
    def of(cls, work: Work) -> "_Item":
        return cls(work, work.rows)

    @property
    def rows(self) -> int:
        return self.total if self.probe is None else len(self.probe)


@dataclass
class _Actor:
    """A worker's handle, its load call until that is done, and the items it holds, the first being at work."""

    handle: Any
    name: str
    loading: Any
    held: deque[tuple[_Item, Any]] = field(default_factory=deque)
    since: float = 0.0

    def refs(self) -> list[Any]:
        return [self.loading] if self.loading is not None else [ref for _, ref in self.held]


class Driver:
    """Everything that ``barycenter.infra.dispatch.api.dispatch`` promises; one instance for one call."""

    def __init__(
        self,
        work: Iterator[Work],
        worker: type,
        args: tuple[Any, ...],
        plan: WorkerPlan,
        name: str,
        limits: Limits,
        on_done: Callable[[Work, Any], None],
        on_quarantine: Callable[[Quarantined], None],
        without_rows: Callable[[Work, tuple[int, ...]], Work] | None,
        first: Sequence[Work] = (),
    ) -> None:
        self._work = work
        self._firsts = deque(_Item.of(each) for each in first)
        self._first: Work | None = None
        self._concurrency = int(getattr(worker, "concurrency", 1))
        self._pickled = cloudpickle.dumps((worker, args))
        self._plan = plan
        self._prefix = f"{identifier(name)}-{secrets.token_hex(3)}"
        self._limits = limits
        self._on_done, self._on_quarantine, self._without_rows = on_done, on_quarantine, without_rows
        self._queue: deque[_Item] = deque()
        self._exhausted = False
        self._actors: dict[str, _Actor] = {}
        self._owner: dict[Any, _Actor] = {}
        self._started = 0
        self._last_answer = self._checked = time.monotonic()
        self._fruitless = 0
        self._slowest: float | None = None
        self._quarantined: list[Quarantined] = []
        self._options: dict[str, Any] = {
            "num_cpus": plan.cpus,
            "num_gpus": plan.gpus_per_worker,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": self._concurrency,
            "scheduling_strategy": "SPREAD",
        }

    def run(self) -> list[Quarantined]:
        """Works until nothing is left."""
        try:
            self._next_first()
            self._refill()
            while self._queue or any(actor.held for actor in self._actors.values()):
                self._start_actors()
                self._hand_out()
                ready = _first_ready(list(self._owner), self._patience())
                for ref in ready:
                    self._attend(self._owner[ref], ref)
                self._kill_the_hung()
                self._check_that_something_runs()
                self._refill()
            return self._quarantined
        finally:
            for actor in list(self._actors.values()):
                self._release(actor)

    def _next_first(self) -> None:
        """Queues the next of the units one of which must be done before all others."""
        self._first = None
        if self._firsts:
            item = self._firsts.popleft()
            self._first = item.work
            self._queue.append(item)

    def _refill(self) -> None:
        """Pulls new work, never more than the actors can hold, and none before the first unit is done."""
        while (
            self._first is None
            and not self._exhausted
            and len(self._queue) < self._plan.workers * self._limits.in_flight
        ):
            try:
                self._queue.append(_Item.of(next(self._work)))
            except StopIteration:
                self._exhausted = True

    def _start_actors(self) -> None:
        busy = sum(bool(actor.held) for actor in self._actors.values())
        while len(self._actors) < min(self._plan.workers, len(self._queue) + busy):
            name = f"{self._prefix}-{self._started}"
            self._started += 1
            handle = ray.remote(Host).options(name=name, **self._options).remote(self._plan.threads)
            actor = _Actor(handle, name, handle.load.remote(self._pickled, in_environment()))
            self._actors[name] = actor
            self._owner[actor.loading] = actor

    def _hand_out(self) -> None:
        """First one item for every actor, then, while there is plenty, one more to wait behind it."""
        loaded = [actor for actor in self._actors.values() if actor.loading is None]
        for depth in range(self._limits.in_flight):
            if depth and len(self._queue) < len(self._actors):
                break
            for actor in loaded:
                if self._queue and len(actor.held) == depth and not (depth and self._must_wait(actor)):
                    self._submit(actor, self._queue.popleft())
        if not self._queue and self._exhausted and self._first is None:
            for actor in [each for each in self._actors.values() if not each.held]:
                self._release(actor)

    def _must_wait(self, actor: _Actor) -> bool:
        """Whether the next item, or the one that the actor is at, tolerates nothing beside it."""
        return self._queue[0].alone or any(item.alone for item, _ in actor.held)

    def _submit(self, actor: _Actor, item: _Item) -> None:
        if item.probe is None:
            ref = actor.handle.run.remote(item.work.payload)
        else:
            ref = actor.handle.probe.remote(item.work.payload, item.probe)
        if not actor.held:
            actor.since = time.monotonic()
        actor.held.append((item, ref))
        self._owner[ref] = actor

    def _patience(self) -> float:
        """Seconds until the next deadline, a second at most so that signals are handled."""
        ends = [end for actor in self._actors.values() if (end := self._deadline(actor)) is not None]
        return min([_POLL_SECONDS, *(max(0.0, end - time.monotonic()) for end in ends)])

    def _deadline(self, actor: _Actor) -> float | None:
        if not actor.held:
            return None
        rows = actor.held[0][0].rows
        limit = self._limits.timeout(rows, self._slowest) if rows else self._limits.start
        return None if limit is None else actor.since + limit

    def _attend(self, actor: _Actor, ref: Any) -> None:
        """Takes the result of a call."""
        try:
            outcome = ray.get(ref)
        except RayTaskError as error:
            outcome = Failure(_last_line(error), environment=False)
        except RayError as error:
            self._lose(actor, _why_lost(error))
            return
        del self._owner[ref]
        self._last_answer = time.monotonic()
        if actor.loading is not None:
            actor.loading = None
            if isinstance(outcome, Failure):
                raise outcome.error()
            return
        item = next(item for item, held in actor.held if held == ref)
        actor.held.remove((item, ref))
        took = self._last_answer - actor.since
        actor.since = self._last_answer
        if isinstance(outcome, Failure):
            if outcome.job_key is not None:
                raise outcome.error()
            self._failed(item, outcome.line, outcome)
        else:
            self._fruitless = 0
            if item.rows:
                self._slowest = max(self._slowest or 0.0, took / item.rows)
            self._succeeded(item, outcome)

    def _succeeded(self, item: _Item, outcome: Done) -> None:
        if item.probe is None:
            if item.work is self._first:
                self._first = None
            log.info("%s done", item.work.id, extra={"shard": item.work.id, "rows": item.work.rows})
            self._on_done(item.work, outcome.value)
        else:
            self._probed(item, failed=False)

    def _lose(self, actor: _Actor, why: str) -> None:
        """Replaces a dead actor: the item it was at is charged, the others go back free.

        Of several that it was at, none is: each is tried again by itself, which shows the guilty one.
        """
        held = list(actor.held)
        several = self._concurrency > 1 and len(held) > 1
        self._release(actor)
        self._queue.extendleft(item for item, _ in reversed(held[0 if several else 1 :]))
        at = f" at {held[0][0].work.id}" if held else ""
        log.warning("worker %s was lost%s: %s", actor.name, at, why)
        if not held or held[0][0].probe is None:
            self._fruitless += 1
        if self._fruitless >= max(_FRUITLESS_LOSSES, 2 * self._plan.workers) * self._limits.attempts // 2:
            raise RunError(f"workers died {self._fruitless} times in a row without finishing anything; last: {why}")
        if several:
            for item, _ in held:
                item.alone = True
        elif held:
            self._failed(held[0][0], why, None)

    def _kill_the_hung(self) -> None:
        now = time.monotonic()
        for actor in list(self._actors.values()):
            end = self._deadline(actor)
            if end is None or now < end or ray.wait([actor.held[0][1]], timeout=0)[0]:
                continue
            self._lose(actor, f"no result after {now - actor.since:.0f} s")

    def _release(self, actor: _Actor) -> None:
        for ref in actor.refs():
            self._owner.pop(ref, None)
        self._actors.pop(actor.name, None)
        with suppress(Exception):
            ray.kill(actor.handle, no_restart=True)

    def _failed(self, item: _Item, why: str, failure: Failure | None) -> None:
        """Charges a failure to an item: once more, or the end of its attempts."""
        outside = failure is not None and failure.environment
        item.tries += 1
        item.detail = why
        if item.probe is not None and not outside:
            self._probed(item, failed=True)
            return
        item.failures += 1
        if item.failures < self._limits.attempts:
            attempt = {"shard": item.work.id, "attempt": item.failures}
            log.warning(
                "%s failed (%d of %d): %s", item.work.id, item.failures, self._limits.attempts, why, extra=attempt
            )
            self._queue.append(item)
        elif failure is not None and outside:
            raise failure.error()
        elif self._without_rows is None or item.total < 1 or item.hunts >= self._limits.hunts:
            self._quarantine(item)
        else:
            self._begin_hunt(item)

    def _begin_hunt(self, item: _Item) -> None:
        log.warning("%s failed %d times (%s); searching for the row", item.work.id, item.failures, item.detail)
        item.hunts += 1
        removed = set(item.removed)
        item.hunt = Hunt.over([row for row in range(item.total) if row not in removed])
        self._continue_hunt(item, item.hunt)

    def _probed(self, item: _Item, failed: bool) -> None:
        if item.hunt is not None and item.probe is not None:
            item.hunt.record(item.probe, failed)
            self._continue_hunt(item, item.hunt)

    def _continue_hunt(self, item: _Item, hunt: Hunt) -> None:
        item.probe = hunt.next_probe()
        if item.probe is not None:
            self._queue.appendleft(item)
            return
        item.hunt = None
        if hunt.gave_up:
            self._quarantine(item)
            return
        if hunt.guilty and self._without_rows is not None:
            rows = tuple(sorted(hunt.guilty))
            self._report(Quarantined(item.work.id, item.tries, item.detail, rows))
            item.removed += rows
            item.work = self._without_rows(item.work, rows)
            item.failures = 0
        else:
            item.failures = self._limits.attempts - 1
        self._queue.append(item)

    def _quarantine(self, item: _Item) -> None:
        if item.work is self._first and self._firsts:
            log.warning("%s failed %d times (%s); it is done in another way", item.work.id, item.tries, item.detail)
            self._next_first()
            return
        self._report(Quarantined(item.work.id, item.tries, item.detail))

    def _report(self, quarantined: Quarantined) -> None:
        log.warning("quarantined %s %s: %s", quarantined.id, quarantined.rows or "(whole)", quarantined.detail)
        self._quarantined.append(quarantined)
        self._on_quarantine(quarantined)

    def _check_that_something_runs(self) -> None:
        """Ends the run when the driver's Ray is gone, or no actor came to work for ``limits.start`` seconds."""
        now = time.monotonic()
        if any(actor.held for actor in self._actors.values()) or now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        here = ray.get_runtime_context().get_node_id()
        if not any(node["Alive"] and node["NodeID"] == here for node in ray.nodes()):
            raise RunError("the Ray node of this driver died; run again, what is done stays done")
        if now - self._last_answer >= self._limits.start:
            has = ray.cluster_resources()
            raise RunError(
                f"no worker started within {now - self._last_answer:.0f} s: each needs {self._plan.cpus:g} CPUs and "
                f"{self._plan.gpus_per_worker:g} GPUs, the cluster has {has.get('CPU', 0):g} and "
                f"{has.get('GPU', 0):g}; wait until it is free or ask for less under ray:"
            )


def _first_ready(refs: list[Any], seconds: float) -> list[Any]:
    """Waits for one call to end; an interruption that fell into Ray's compiled code comes out of it as itself."""
    try:
        ready: list[Any] = ray.wait(refs, num_returns=1, timeout=seconds)[0]
    except SystemError as error:
        if error.__cause__ is None or isinstance(error.__cause__, Exception):
            raise
        raise error.__cause__ from None
    return ready


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]


def _why_lost(error: RayError) -> str:
    """A few words for why Ray gave an actor up."""
    text = " ".join(str(error).split())
    known = {
        "running low on memory": "it was killed because its node ran out of memory",
        "its node has died": "its node was lost",
        "its owner has died": "the Ray node of this driver was lost",
        "killed by `ray.kill`": "it was killed",
        "its worker process has died": "its process died (a crash, a kill or out of memory)",
    }
    return next((words for mark, words in known.items() if mark in text), f"{type(error).__name__}: {text[:300]}")
