"""Training on Ray workers: one loop, data parallel, its newest checkpoint in the run's storage, restarted after a loss.

Ray Train places the workers and joins them into a process group. Checkpoints are ours: rank 0 writes each as one
safetensors file (its JSON in the header) into the run's storage, local or S3, where the next attempt and the next run
find the newest. So retries have one owner, :func:`train`, and nothing is pickled.
"""

import json
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import ray.train
import safetensors.torch
import torch
import torch.distributed
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from barycenter.fusion.errors import BarycenterError, RunError
from barycenter.fusion.training.context import Checkpoint, TrainingContext
from barycenter.infra.dispatch.executor import Failure, WorkerAllocation
from barycenter.infra.names import identifier
from barycenter.infra.ray.private import placement_errors
from barycenter.infra.storage import Storage
from barycenter.infra.storage.credentials import environment_credentials

Loop: TypeAlias = Callable[[TrainingContext, dict[str, Any]], Checkpoint]
"""Runs on every rank with the same config; what rank 0 returns is the result."""

log = logging.getLogger(__name__)

_DONE = "trained.safetensors"
_POLL_SECONDS = "0.25"


def train(
    loop: Loop,
    config: dict[str, Any],
    *,
    allocation: WorkerAllocation,
    storage: Storage,
    folder: str,
    name: str = "train",
    attempts: int = 3,
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

    Returns:
        The loop's own last checkpoint.

    Raises:
        RunError: The loop failed, workers keep dying, or none can be placed.
        JobError: The loop found the job wrong.
    """
    store = CheckpointStore(storage, folder)
    lost, reached = 0, -1
    while (done := store.done()) is None:
        problem = _attempt(loop, config, allocation, store, name)
        if problem is None:
            continue
        step = store.step()
        lost = lost + 1 if step <= reached or lost == 0 else 1
        reached = max(reached, step)
        log.warning("training %s lost its workers at step %d (%s)", name, max(step, 0), problem)
        if lost >= attempts:
            raise RunError(f"training {name}: workers were lost {lost} times: {problem}; run again to go on from there")
    store.clear()
    return done


def _attempt(
    loop: Loop, config: dict[str, Any], allocation: WorkerAllocation, store: "CheckpointStore", name: str
) -> str | None:
    """One try; None when it ended well, else what took the workers away."""
    gpus = {"GPU": allocation.gpus_per_worker} if allocation.gpus_per_worker else {}
    resources = {"CPU": allocation.cpus} | gpus
    with (
        tempfile.TemporaryDirectory(prefix="barycenter-train-") as scratch,
        _train_environment(),
        _restored_interrupt_handler(),
    ):
        trainer = TorchTrainer(
            _run_rank,
            train_loop_config={"work": _Work(loop, config, store, allocation.threads, environment_credentials())},
            scaling_config=ScalingConfig(
                num_workers=allocation.workers, use_gpu=allocation.gpus_per_worker > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=identifier(name),
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
                logging_config=LoggingConfig(log_level="ERROR"),
            ),
        )
        try:
            trainer.fit()
        except WorkerGroupError as error:
            return _loss_of_workers(error)
        except ControllerError as error:
            line = " ".join(str(error.controller_failure).split())[:300]
            if not isinstance(error.controller_failure, placement_errors()):
                return line
            raise RunError(
                f"training {name}: no {allocation.workers} workers of {resources} could start: {line}"
            ) from error
        except (TrainingFailedError, RayError) as error:
            return " ".join(str(error).split())[:300]
    return None


@dataclass(frozen=True)
class _Work:
    """What every rank is handed; its text, which Ray may show, holds no credentials."""

    loop: Loop
    config: dict[str, Any]
    store: "CheckpointStore"
    threads: int
    credentials: dict[str, str] = field(repr=False)


class _LoopError(Exception):
    """Carries what the loop raised as plain text, without pickling it."""

    def __init__(self, failure: Failure, by_peer: bool) -> None:
        super().__init__(failure, by_peer)
        self.failure, self.by_peer = failure, by_peer


def _loss_of_workers(error: WorkerGroupError) -> str:
    """What happened to the workers; raises where it was the loop's own doing."""
    failures = list(error.worker_failures.values())
    own = [each.failure for each in failures if isinstance(each, _LoopError) and not each.by_peer]
    gone = [each for each in failures if not isinstance(each, _LoopError)]
    if own and not gone:
        raise own[0].error() from error
    reported = gone or failures
    return " ".join(str(reported[0]).split())[:300] if reported else "a worker was lost"


def _run_rank(arguments: dict[str, Any]) -> None:
    """What Ray Train runs on every worker."""
    work: _Work = arguments["work"]
    os.environ.update(work.credentials)
    torch.set_num_threads(work.threads)
    context = _RankContext(work.store)
    try:
        with threadpool_limits(work.threads):
            result = work.loop(context, work.config)
    except Exception as error:  # noqa: BLE001 - reported to the driver
        by_peer = context.world_size > 1 and not isinstance(error, BarycenterError) and _is_broken_group(error)
        raise _LoopError(Failure.of(error), by_peer) from None
    if context.rank == 0:
        work.store.finish(result)


def _is_broken_group(error: Exception) -> bool:
    """Whether a collective failed because another rank is gone."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error).lower() for word in ("gloo", "nccl", "connection closed by peer", "connection reset")
    )


class _RankContext:
    """One rank; a :class:`~barycenter.fusion.training.context.TrainingContext`."""

    def __init__(self, store: "CheckpointStore") -> None:
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
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


class CheckpointStore:
    """The checkpoints of one training, in its folder of the storage; a small picklable value."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, folder

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint and removes older ones."""
        older = self._saved()
        path = f"{self._folder}/checkpoint-{checkpoint.step:010d}.safetensors"
        self._write(path, checkpoint)
        self._storage.remove([old for old in older if old != path])

    def newest(self) -> Checkpoint | None:
        """The newest, or None."""
        saved = self._saved()
        return self._read(saved[-1]) if saved else None

    def step(self) -> int:
        """The step of the newest, or -1."""
        saved = self._saved()
        return int(saved[-1].rpartition("-")[2].partition(".")[0]) if saved else -1

    def finish(self, checkpoint: Checkpoint) -> None:
        """Writes the result."""
        self._write(f"{self._folder}/{_DONE}", checkpoint)

    def done(self) -> Checkpoint | None:
        """The result, if there is one."""
        path = f"{self._folder}/{_DONE}"
        return self._read(path) if self._storage.exists(path) else None

    def clear(self) -> None:
        """Removes what is not needed beside a result."""
        self._storage.remove(self._saved())

    def _saved(self) -> list[str]:
        paths = self._storage.list(self._folder)
        return [path for path in paths if path.rpartition("/")[2].startswith("checkpoint-")]

    def _write(self, path: str, checkpoint: Checkpoint) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        header = {"step": str(checkpoint.step), "state": json.dumps(checkpoint.state)}
        self._storage.write(path, safetensors.torch.save(tensors, metadata=header))

    def _read(self, path: str) -> Checkpoint:
        content = self._storage.read(path)
        try:
            size = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + size])["__metadata__"]
            return Checkpoint(int(header["step"]), safetensors.torch.load(content), json.loads(header["state"]))
        except (ValueError, KeyError, safetensors.SafetensorError) as error:
            raise RunError(f"{self._storage.uri(path)}: not a checkpoint of ours ({error}); delete it") from error


@contextmanager
def _train_environment() -> Iterator[None]:
    """Ray Train's switches are environment variables that it hands on to its actors."""
    wanted = {
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": _POLL_SECONDS,
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
        "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


@contextmanager
def _restored_interrupt_handler() -> Iterator[None]:
    """Ray Train takes Ctrl-C for itself and never gives it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGINT, before)
