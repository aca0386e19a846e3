"""Workers as Ray actors: the executor of every run on a cluster."""

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from barycenter.fusion.errors import RunError
from barycenter.infra.clock import current_clock
from barycenter.infra.dispatch.executor import (
    Cause,
    Done,
    Failure,
    Lost,
    Outcome,
    StartedWorker,
    WorkerAllocation,
    outcome_of,
)
from barycenter.infra.dispatch.units import Worker
from barycenter.infra.names import identifier
from barycenter.infra.ray.environment import DriverEnvironment, MissingCertificates
from barycenter.infra.ray.private import autoscaling, draining_nodes
from barycenter.infra.ray.renewal import GROUP, Edition, Receiver, Renewal
from barycenter.infra.ray.worker_lines import WithLines, WorkerLines, log_again
from barycenter.infra.words import counted

log = logging.getLogger(__name__)

_THREADED = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON")


@dataclass(frozen=True)
class _Loaded:
    """A worker is made: the id of its node, and what that lacks."""

    node: str
    missing: MissingCertificates | None


class WorkerActor:
    """Holds one worker object in its own process; Ray's tools show it under the name of the worker's class.

    Threads are pinned before the worker's libraries are imported: its class arrives pickled.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._worker: Any = None
        self._credentials = Receiver()
        self._lines = WorkerLines(ray.get_runtime_context().get_actor_name() or "")
        os.environ.update({f"{library}_NUM_THREADS": str(threads) for library in _THREADED})

    def load(self, pickled: bytes, environment: DriverEnvironment, edition: Edition) -> WithLines[Done | Failure]:
        """Makes the worker, once; it sees the driver's storage credentials, proxies and tokens in its environment."""
        missing = environment.take_over()
        self._credentials.receive(edition)
        made = outcome_of(self._load, pickled)
        here = str(ray.get_runtime_context().get_node_id())
        return self._lines.attach(Done(_Loaded(here, missing)) if isinstance(made, Done) else made)

    def renew(self, edition: Edition) -> None:
        """Takes over newer storage credentials, also while another call runs."""
        self._credentials.receive(edition)

    def call(self, method: str, *args: Any) -> WithLines[Done | Failure]:
        """Calls a method of the worker."""
        return self._lines.attach(outcome_of(getattr(self._worker, method), *args))

    def _load(self, pickled: bytes) -> None:
        worker, args = cloudpickle.loads(pickled)
        self._worker = worker(*args)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(self._threads)
        if "numpy" in sys.modules:
            from threadpoolctl import threadpool_limits

            threadpool_limits(self._threads)


class RayExecutor:
    """An :class:`~barycenter.infra.dispatch.executor.Executor` whose workers are actors without retries of Ray's own.

    ``worker`` and ``args`` are sent to them by pickle; their names begin with ``name``.
    """

    def __init__(
        self,
        worker: type[Worker],
        args: tuple[Any, ...],
        allocation: WorkerAllocation,
        name: str,
        start_seconds: float | None = None,
    ) -> None:
        self.workers, self.concurrency = allocation.workers, int(getattr(worker, "concurrency", 1))
        self.at_first = allocation.workers if allocation.at_first is None else allocation.at_first
        self.start_seconds = start_seconds
        self._allocation = allocation
        self._pickled = cloudpickle.dumps((worker, args))
        self._prefix = f"{identifier(name)}-{current_clock().token(3)}"
        self._numbers = count()
        actor = type(worker.__name__, (WorkerActor,), {"__module__": WorkerActor.__module__})
        self._actor = ray.remote(concurrency_groups={GROUP: 1})(actor)
        self._environment, self._renewal = DriverEnvironment.here(), Renewal()
        self._lacking: set[tuple[str, str]] = set()
        self._options = {
            "num_cpus": allocation.cpus,
            "num_gpus": allocation.gpus_per_worker,
            "memory": allocation.memory or None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": self.concurrency,
        }

    def start(self, strategy: Any = "SPREAD") -> StartedWorker:
        """Starts one more actor, without waiting for it; ``strategy`` is Ray's, for where.

        Raises:
            RunError: The source of the storage credentials has none.
        """
        edition = self._renewal.newest()
        name = f"{self._prefix}-{next(self._numbers)}"
        options = self._options | {"name": name, "scheduling_strategy": strategy}
        handle = self._actor.options(**options).remote(self._allocation.threads)
        loading = handle.load.remote(self._pickled, self._environment, edition)
        self._renewal.add(name, handle, edition)
        return StartedWorker(name, handle, loading)

    def submit(self, worker: StartedWorker, method: str, *args: Any) -> Any:
        """Queues a method call on an actor."""
        return worker.handle.call.remote(method, *args)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """The first call that has ended; an interruption that fell into Ray's compiled code comes out as itself."""
        try:
            ready: list[Any] = ray.wait(list(calls), num_returns=1, timeout=seconds)[0]
        except SystemError as error:
            if error.__cause__ is None or isinstance(error.__cause__, Exception):
                raise
            raise error.__cause__ from None
        return ready

    def outcome(self, call: Any) -> Outcome:
        """What became of a call that has ended."""
        try:
            result: Outcome = log_again(ray.get(call))
        except RayTaskError as error:
            return Failure(_last_line(error), environment=False)
        except RayError as error:
            return _lost(error)
        if isinstance(result, Done) and isinstance(result.value, _Loaded):
            if result.value.missing is not None:
                self._report(result.value.missing)
            return Done(result.value.node)
        return result

    def kill(self, worker: StartedWorker) -> None:
        """Ends an actor."""
        self._renewal.remove(worker.name)
        with suppress(Exception):
            ray.kill(worker.handle, no_restart=True)

    def check_alive(self) -> None:
        """Finds out whether the driver's own node is part of the cluster still."""
        here = ray.get_runtime_context().get_node_id()
        if not any(node["Alive"] and node["NodeID"] == here for node in ray.nodes()):
            raise RunError("the Ray node of this driver died; run again, what is done stays done")

    def leaving(self) -> frozenset[str]:
        """The ids of the nodes that are drained."""
        return draining_nodes()

    def reserve_memory(self, least: int | None = None) -> None:
        """More memory for each actor from now on; never more than the largest node has that could hold it."""
        if reserved := self._options["memory"]:
            sizes = (
                node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self.leaving()
            )
            cpus, gpus = self._allocation.cpus, self._allocation.gpus_per_worker
            fitting = [size for size in sizes if size.get("CPU", 0) >= cpus and size.get("GPU", 0) >= gpus]
            most = max((size.get("memory", 0) for size in fitting), default=0)
            self._options["memory"] = int(max(reserved, min(least or 1.5 * reserved, most)))

    def shortage(self) -> str:
        """What an actor needs, what the cluster has and what its autoscaler says."""
        has = ray.cluster_resources()
        memory = f" and {self._options['memory'] / 2**30:.1f} GiB of memory" if self._options["memory"] else ""
        needs = f"{self._allocation.cpus:g} CPUs and {self._allocation.gpus_per_worker:g} GPUs{memory}"
        said = [
            f"each needs {needs}, the cluster has {has.get('CPU', 0):g} and {has.get('GPU', 0):g}",
            *_what_may_come(),
        ]
        return f"{', '.join(said)}; wait until it is free or ask for less under ray:"

    def _report(self, missing: MissingCertificates) -> None:
        """Warns, once for each node and variable."""
        for variable, path in missing.files.items():
            if (missing.node, variable) not in self._lacking:
                self._lacking.add((missing.node, variable))
                log.warning(
                    "%s is %s, which is not on the node %s: its workers trust the certificates of that node; put the "
                    "file there, or unset the variable",
                    variable, path, missing.node,
                )  # fmt: skip


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]


def _what_may_come() -> list[str]:
    """What the cluster's autoscaler does about it; nothing where none says."""
    scaling = autoscaling()
    if scaling is None:
        return []
    said = [f"its autoscaler starts {counted(scaling.starting, 'node')}"]
    if scaling.impossible:
        said.append(f"for {scaling.impossible} of what is asked for it has no node type, or all its nodes run")
    return said


def _lost(error: RayError) -> Lost:
    """A few words for why Ray gave an actor up, and what it was."""
    text = " ".join(str(error).split())
    known: dict[str, tuple[str, Cause]] = {
        "running low on memory": ("it was killed because its node ran out of memory", "memory"),
        "its node has died": ("its node was lost", "node"),
        "its owner has died": ("the Ray node of this driver was lost", "node"),
        "killed by `ray.kill`": ("it was killed", "work"),
        "its worker process has died": ("its process died (a crash, a kill or out of memory)", "work"),
    }
    if getattr(error, "preempted", False):
        return Lost("its node was taken away", "node")
    words = next((words for mark, words in known.items() if mark in text), None)
    return Lost(*words) if words else Lost(f"{type(error).__name__}: {text[:300]}")
