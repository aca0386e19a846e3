"""How many workers of which size a cluster is asked for: what it has, what may still come, what the work is worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Literal

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.job.places import WorkerRange, Workers

_ROWS_WORTH_A_WORKER = 256
_MOST_AUTO_THREADS = 4
_MOST_GPU_THREADS = 8
_MOST_UNKNOWN = 256
_FIRST_ASKED = 2


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers; ``memory`` in bytes, infinite where it does not say."""

    cpus: float
    gpus: float
    memory: float = math.inf

    def holds(self, cpus: float, gpus: float, memory: float = 0.0) -> int:
        """How many workers of that size fit."""
        fitting = int(self.cpus / cpus + 1e-6)
        if gpus:
            fitting = min(fitting, int(self.gpus / gpus + 1e-6))
        return min(fitting, int(self.memory // memory)) if memory and math.isfinite(self.memory) else fitting


@dataclass(frozen=True)
class NodeGroup:
    """Machines of one kind that an autoscaler may start: ``most`` in all, those that run included; None: no limit."""

    node: Node
    most: int | None


@dataclass(frozen=True)
class Machines:
    """The machines of a cluster at one moment.

    Attributes:
        address: Of the cluster, for messages.
        nodes: Those that are there.
        groups: Those that may be there, where Ray names them.
        grows: An autoscaler watches what is asked for.
        own: A Ray that this process started on its machine: nothing can be added to it.
        in_process: No Ray: the one worker is the calling process, on the CPU, whatever is asked for.
    """

    address: str
    nodes: tuple[Node, ...]
    groups: tuple[NodeGroup, ...] = ()
    grows: bool = False
    own: bool = False
    in_process: bool = False

    @property
    def cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    def allocate_workers(
        self,
        workers: Workers = "auto",
        threads: int | Literal["auto"] = "auto",
        gpus: float | Literal["auto"] = "auto",
        rows: int | None = None,
        *,
        memory: int = 0,
        inputs: int = 1,
    ) -> WorkerAllocation:
        """Chooses what the job file left to us.

        Without GPUs few workers of up to four threads; with GPUs one worker a GPU and its share of the CPUs, less one
        where other inputs may want it. No more
        workers than the rows are worth (one for 256), for each loads the model. Where nodes may still come, workers are
        asked for by the worth of the work and not by what is there: those without a place wait for one, and that is the
        demand that an autoscaler sees.

        Args:
            workers: ``ray.workers``. A number is taken as it is; on a Ray of this process's own CPUs are shared out if
                there are too few.
            threads: ``ray.threads_per_worker``.
            gpus: ``ray.gpus_per_worker``; ``auto`` is one where the cluster has GPUs; 0 for work that needs none.
            rows: Rows to be worked on.
            memory: Bytes that a worker takes; reserved where the nodes say how much they have.
            inputs: How many inputs are embedded side by side, with workers of their own.

        Raises:
            JobError: No node can hold a worker's GPUs.
            RunError: No node has a CPU, and none will come.
        """
        if self.in_process:
            workers, gpus, memory, inputs = 1, 0, 0, 1
        elastic = not self.own and (self.grows or bool(self.groups) or isinstance(workers, WorkerRange))
        share = self._gpu_share(gpus, elastic)
        nodes = [node for node in self.nodes if node.cpus > 0 and node.gpus >= share]
        shapes = nodes + [group.node for group in self.groups if group.node.cpus > 0 and group.node.gpus >= share]
        if not shapes and not elastic:
            raise RunError(_no_node(self.address))
        fixed = workers if isinstance(workers, int) else None
        each = _auto_threads(shapes, fixed if self.own else None, share, inputs) if threads == "auto" else threads
        memory = _reserved_memory(shapes, memory)
        if not elastic:
            count = _fixed_workers(nodes, each, share, rows, memory) if fixed is None else fixed
            if isinstance(workers, WorkerRange):
                count = min(max(count, workers.min), workers.max)
            cpus = _cpu_reservation(nodes, count, each, share) if self.own or share else _widest(nodes, each)
            if self.own and _room(nodes, cpus, share, memory) < min(count, _room(nodes, cpus, share, 0.0)):
                memory = 0  # so many were asked for
            return WorkerAllocation(count, each, share, cpus, memory)
        cpus = _widest(shapes, each)
        here = _room(nodes, cpus, share, memory)
        if fixed is not None:
            return WorkerAllocation(fixed, each, share, cpus, memory)
        most = self._most(cpus, share, memory)
        least = 1
        if isinstance(workers, WorkerRange):
            most, least = workers.max, workers.min
        worth = most if rows is None else math.ceil(rows / _ROWS_WORTH_A_WORKER)
        count = max(least, min(most, worth), 1)
        return WorkerAllocation(count, each, share, cpus, memory, at_first=min(count, max(here, least, _FIRST_ASKED)))

    def allocate_ranks(
        self,
        workers: Workers = "auto",
        threads: int | Literal["auto"] = "auto",
        gpus: float | Literal["auto"] = "auto",
    ) -> WorkerAllocation:
        """As :meth:`allocate_workers`, for workers that must all run at once: no more than may fit on the nodes.

        Nodes that may come count where Ray says how many there can be; else those count that are there, and where a
        number or a range is asked for, that is the number.
        """
        allocation = self.allocate_workers(workers, threads, gpus)
        size = allocation.cpus, allocation.gpus_per_worker, 0.0
        fitting = _room(self.nodes, *size)
        if self.groups:
            fitting = self._most(*size)
        elif not self.own and workers != "auto":
            fitting = max(fitting, allocation.workers)
        return replace(allocation, workers=max(1, min(allocation.workers, fitting)), memory=0, at_first=None)

    def room(self, allocation: WorkerAllocation) -> int:
        """How many workers of an allocation fit on the nodes that are there."""
        return _room(self.nodes, allocation.cpus, allocation.gpus_per_worker, allocation.memory)

    def _most(self, cpus: float, gpus: float, memory: float) -> int:
        """How many workers of that size the cluster could ever hold; a limit of ours where Ray does not say."""
        if not self.groups:
            return max(_MOST_UNKNOWN, _room(self.nodes, cpus, gpus, memory))
        if any(group.most is None and group.node.holds(cpus, gpus, memory) for group in self.groups):
            return max(_MOST_UNKNOWN, _room(self.nodes, cpus, gpus, memory))
        there = list(self.nodes)
        to_come: list[Node] = []
        for group in self.groups:
            running = [node for node in there if (node.cpus, node.gpus) == (group.node.cpus, group.node.gpus)]
            for node in running:
                there.remove(node)
            most = max(group.most or 0, len(running))
            to_come.extend(chain(running, repeat(group.node, most - len(running))))
        return _room([*there, *to_come], cpus, gpus, memory)

    def _gpu_share(self, gpus: float | Literal["auto"], elastic: bool) -> float:
        machines = [*self.nodes, *(group.node for group in self.groups)]
        most = max((node.gpus for node in machines), default=0.0)
        if gpus == "auto":
            return 1.0 if most >= 1 else 0.0
        if gpus > 1 and gpus != int(gpus):
            raise JobError(
                "ray.gpus_per_worker",
                f"{gpus:g} is neither a whole number nor a fraction of one GPU; write 2 or 0.5, say",
            )
        if gpus > most and (not elastic or self.groups):
            later = (
                "" if self.own or self.groups else "; if nodes with GPUs come later, say so by ray.workers: {max: N}"
            )
            problem = f"{gpus:g} asked for, but no node of the cluster has more than {most:g}; use 0 or auto{later}"
            raise JobError("ray.gpus_per_worker", problem)
        return float(gpus)


def _no_node(address: str) -> str:
    return (
        f"the Ray cluster at {address} has no node with a CPU, and no autoscaler of version 2 that could add one; add "
        "a node, or set ray.workers: {max: N} if nodes come later"
    )


def _room(nodes: Sequence[Node], cpus: float, gpus: float, memory: float) -> int:
    """How many workers of that size fit on the nodes at once."""
    return sum(node.holds(cpus, gpus, memory) for node in nodes)


def _reserved_memory(nodes: Sequence[Node], memory: int) -> int:
    """What a worker reserves: nothing where a node does not say what it has; never more than the largest has."""
    if not nodes or not all(math.isfinite(node.memory) for node in nodes):
        return 0
    return int(min(memory, max(node.memory for node in nodes)))


def _auto_threads(nodes: Sequence[Node], workers: int | None, share: float, inputs: int) -> int:
    """One where nothing is known of the nodes: such a worker fits on any."""
    smallest = min((node.cpus for node in nodes), default=1.0)
    if share:
        each = min((node.cpus / max(1, int(node.gpus / share + 1e-6)) for node in nodes), default=1.0)
        beside = 1 if inputs > 1 else 0
        return int(max(1, min(_MOST_GPU_THREADS, each - beside)))
    if workers is None:
        side_by_side = 1 if inputs < 2 else 2 * inputs
        return int(max(1, min(_MOST_AUTO_THREADS, smallest // side_by_side)))
    return int(max(1, min(smallest, sum(node.cpus for node in nodes) // workers)))


def _fixed_workers(nodes: Sequence[Node], threads: int, share: float, rows: int | None, memory: float) -> int:
    fitting = _room(nodes, threads, share, memory)
    by_gpu = sum(int(node.gpus / share + 1e-6) for node in nodes) if share else 1
    worth = fitting + by_gpu if rows is None else max(1, math.ceil(rows / _ROWS_WORTH_A_WORKER))
    return min(max(fitting, by_gpu), worth)


def _widest(nodes: Sequence[Node], threads: int) -> float:
    """CPUs reserved for a worker of that many threads: no more than the largest node has."""
    return float(min([threads, max(node.cpus for node in nodes)] if nodes else [threads]))


def _cpu_reservation(nodes: Sequence[Node], workers: int, threads: int, share: float) -> float:
    """The most CPUs, up to ``threads``, that may be reserved for each so that all workers are placed at once."""
    sizes = {float(threads)} | {node.cpus / count for node in nodes for count in range(1, workers + 1)}
    room = sum(int(node.gpus / share + 1e-6) for node in nodes) if share else workers
    wanted = min(workers, room)
    for size in sorted((size for size in sizes if size <= threads), reverse=True):
        cpus = float(int(size)) if size >= 1 and size == int(size) else int(size * 1000) / 1000
        if cpus > 0 and _room(nodes, cpus, share, 0.0) >= wanted:
            return cpus
    return 0.001
