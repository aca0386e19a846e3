"""Training on Ray workers: one loop, data parallel, its newest checkpoint in the run's storage, restarted after a loss.

The ranks are workers of :class:`~barycenter.infra.ray.executor.RayExecutor`, placed all at once or not at all, and
joined into a process group of torch where they are several. Rank 0 writes the checkpoints; the next attempt and the
next run go on from them, so that retries have one owner, :func:`train`.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import ray
import torch
import torch.distributed
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor, nn
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from barycenter.fusion.errors import BarycenterError, RunError
from barycenter.fusion.training.context import Checkpoint, TrainingContext
from barycenter.infra.clock import current_clock
from barycenter.infra.deadline import check_deadline
from barycenter.infra.dispatch.executor import Failure, Lost, StartedWorker, WorkerAllocation
from barycenter.infra.dispatch.retry import Limits
from barycenter.infra.ray.checkpoints import CheckpointStore
from barycenter.infra.ray.executor import RayExecutor
from barycenter.infra.storage import Storage

Loop: TypeAlias = Callable[[TrainingContext, dict[str, Any]], Checkpoint]
"""Runs on every rank with the same config; what rank 0 returns is the result."""

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_QUIET_SECONDS = 10.0
_START_SECONDS = Limits().start
_GROUP_LIMIT = timedelta(minutes=30)
"""How long a rank waits for another, which may read its rows."""

_CAUSE_SECONDS = 5.0
"""How long a failure may be ahead of the news that another rank is lost."""


def train(
    loop: Loop,
    config: dict[str, Any],
    *,
    allocation: WorkerAllocation,
    storage: Storage,
    folder: str,
    name: str = "train",
    attempts: int = 3,
    start_seconds: float = _START_SECONDS,
) -> Checkpoint:
    """Trains to the end, or finds it done.

    Workers that die (crash, out of memory, node lost) are replaced and the loop goes on from the newest checkpoint; so
    does a later call with the same folder. An exception of the loop itself ends the training at once.

    Args:
        loop: A function at the top of a module; it and ``config`` are sent to the workers.
        config: What it is called with, beside its :class:`~barycenter.fusion.training.context.TrainingContext`.
        allocation: How many workers, and what each reserves; as many ranks train data parallel.
        storage: Where checkpoints lie.
        folder: In the storage; the caller names it by everything that the result depends on.
        name: Of the training, in Ray.
        attempts: Tries without any progress between them before giving up.
        start_seconds: How long room for all workers at once is waited for, and their start.

    Returns:
        The loop's own last checkpoint.

    Raises:
        RunError: The loop failed, workers keep dying, or none can be placed.
        JobError: The loop found the job wrong.
    """
    store = CheckpointStore(storage, folder)
    lost, reached, done = 0, -1, store.done()
    while done is None:
        problem = _attempt(loop, config, allocation, store, name, start_seconds)
        if (done := store.done()) is not None:
            break
        problem = problem or f"their result is not seen at {storage.uri(folder)}"
        step = store.step()
        lost = lost + 1 if step <= reached or lost == 0 else 1
        reached = max(reached, step)
        log.warning("training %s lost its workers at step %d (%s)", name, max(step, 0), problem)
        if lost >= attempts:
            raise RunError(f"training {name}: workers were lost {lost} times: {problem}; run again to go on from there")
    store.clear()
    return done


def _attempt(
    loop: Loop,
    config: dict[str, Any],
    allocation: WorkerAllocation,
    store: CheckpointStore,
    name: str,
    start_seconds: float,
) -> str | None:
    """One try; None when it ended well, else what took the workers away."""
    executor = RayExecutor(TrainingRank, (loop, config, store, allocation.gpus_per_worker), allocation, name)
    executor.check_alive()
    with _placed(executor, allocation, name, start_seconds) as ranks:
        loaded = _join(executor, [rank.loading for rank in ranks], start_seconds)
        if isinstance(loaded, Lost):
            return loaded.why
        opened = _join(executor, [executor.submit(ranks[0], "open_group", len(ranks))])
        if isinstance(opened, Lost):
            return opened.why
        seats = [Seat(number, len(ranks), opened[0]) for number in range(len(ranks))]
        ended = _join(executor, [executor.submit(rank, "run", seat) for rank, seat in zip(ranks, seats, strict=True)])
        return ended.why if isinstance(ended, Lost) else None


@contextmanager
def _placed(
    executor: RayExecutor, allocation: WorkerAllocation, name: str, start_seconds: float
) -> Iterator[list[StartedWorker]]:
    """The workers of an allocation, started where all of them have room at once; they end with the block.

    Raises:
        RunError: There was no room for all of them in the time that a worker has to start.
    """
    bundle = {"CPU": allocation.cpus} | ({"GPU": allocation.gpus_per_worker} if allocation.gpus_per_worker else {})
    group = placement_group([bundle] * allocation.workers, strategy="PACK")
    try:
        clock = current_clock()
        begin = clock.monotonic()
        waits = f"training {name} waits for room for {allocation.workers} workers at once"
        while not group.wait(_POLL_SECONDS):
            check_deadline()
            executor.check_alive()
            if waits and clock.monotonic() >= begin + _QUIET_SECONDS:
                log.warning("%s: %s", waits, executor.shortage())
                waits = ""
            if clock.monotonic() >= begin + start_seconds:
                raise RunError(
                    f"training {name}: no room for {allocation.workers} workers at once: {executor.shortage()}"
                )
        strategy = PlacementGroupSchedulingStrategy(placement_group=group)
        ranks = [executor.start(strategy) for _ in range(allocation.workers)]
        try:
            yield ranks
        finally:
            for rank in ranks:
                executor.kill(rank)
    finally:
        with suppress(Exception):
            remove_placement_group(group)


def _join(executor: RayExecutor, calls: list[Any], limit: float = float("inf")) -> list[Any] | Lost:
    """Waits for calls of ranks: what they returned, or the loss of one.

    Where a rank fails, one that was lost may be the cause: it is waited for a little.

    Raises:
        RunError: What the loop raised, or not all calls ended in ``limit`` seconds.
        JobError: What the loop raised.
    """
    clock, returned = current_clock(), dict.fromkeys(calls)
    end, failed = clock.monotonic() + limit, None
    waiting = list(calls)
    while waiting and clock.monotonic() < end:
        ended = executor.wait(waiting, _POLL_SECONDS)
        check_deadline()
        if not ended:
            executor.check_alive()
        for call in ended:
            waiting.remove(call)
            outcome = executor.outcome(call)
            if isinstance(outcome, Lost):
                return outcome
            problem = outcome if isinstance(outcome, Failure) else outcome.value
            if isinstance(problem, Failure) or (isinstance(problem, BrokenGroup) and failed is None):
                failed = problem
                end = min(end, clock.monotonic() + _CAUSE_SECONDS)
            returned[call] = problem
    if isinstance(failed, Failure):
        raise failed.error()
    if failed is not None:
        return Lost(failed.line)
    if waiting:
        raise RunError(f"{len(waiting)} of {len(calls)} workers did not start in {limit:.0f} s: {executor.shortage()}")
    return list(returned.values())


@dataclass(frozen=True)
class Seat:
    """The place of a worker among the ranks: its number, of how many, and where they meet (host and port)."""

    rank: int
    world_size: int
    address: tuple[str, int]


@dataclass(frozen=True)
class BrokenGroup:
    """What a rank returns whose collective failed because another is gone."""

    line: str


class TrainingRank:
    """The worker of one rank."""

    def __init__(self, loop: Loop, config: dict[str, Any], store: CheckpointStore, gpus: float) -> None:
        self._loop, self._config, self._store, self._gpus = loop, config, store, gpus
        self._meeting: Store | None = None

    def open_group(self, world_size: int) -> tuple[str, int]:
        """Opens the store at which the ranks meet, on this node; returns its host and port."""
        if world_size == 1:
            return "", 0
        host = ray.util.get_node_ip_address()
        store = TCPStore(host, 0, world_size, is_master=True, wait_for_workers=False, timeout=_GROUP_LIMIT)
        self._meeting = store
        return host, store.port

    def run(self, seat: Seat) -> BrokenGroup | None:
        """Runs the loop to its end; rank 0 writes the result."""
        device = torch.device("cuda", 0) if self._gpus else torch.device("cpu")
        try:
            if seat.world_size > 1:
                self._meet(seat, device)
            result = self._loop(_RankContext(seat, device, self._store), self._config)
        except Exception as error:
            if seat.world_size > 1 and not isinstance(error, BarycenterError) and _is_broken_group(error):
                return BrokenGroup(" ".join(str(error).split())[:300])
            raise
        if seat.rank == 0:
            self._store.finish(result)
        return None

    def _meet(self, seat: Seat, device: torch.device) -> None:
        """Joins the process group; NCCL takes one rank a GPU only."""
        store = self._meeting or TCPStore(*seat.address, seat.world_size, is_master=False, timeout=_GROUP_LIMIT)
        nccl = self._gpus >= 1
        torch.distributed.init_process_group(
            "nccl" if nccl else "gloo",
            store=store,
            rank=seat.rank,
            world_size=seat.world_size,
            timeout=_GROUP_LIMIT,
            device_id=device if nccl else None,
        )


def _is_broken_group(error: Exception) -> bool:
    """Whether a collective failed because another rank is gone."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in ("gloo", "nccl", "connection closed by peer", "connection reset")
    )


class _RankContext:
    """One rank; a :class:`~barycenter.fusion.training.context.TrainingContext`."""

    def __init__(self, seat: Seat, device: torch.device, store: CheckpointStore) -> None:
        self.rank, self.world_size, self.device = seat.rank, seat.world_size, device
        self._store = store

    def latest_checkpoint(self) -> Checkpoint | None:
        found = self._store.newest()
        if self.world_size > 1:
            torch.distributed.barrier()  # no rank saves before every rank has read where to begin
        return found

    def save(self, checkpoint: Checkpoint) -> None:
        if self.rank == 0:
            self._store.save(checkpoint)

    def prepare_module(self, module: nn.Module) -> nn.Module:
        module = module.to(self.device)
        if self.world_size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=devices)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        if self.world_size == 1:
            return values
        summed = values.detach().clone().to(self.device)
        torch.distributed.all_reduce(summed)
        return summed.to(values.device)
