"""The Ray cluster a run works on: started here, or joined; never one for the other."""

import contextlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import ray
import ray._private.worker as ray_worker

from barycenter.fusion.errors import JobError, RunError

log = logging.getLogger(__name__)

_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_OBJECT_STORE_BYTES = 256 * 2**20
_ROWS_WORTH_A_WORKER = 256
_LONGEST_FOLDER = 36
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_MOST_AUTO_THREADS = 4
_MOST_GPU_THREADS = 8


@dataclass(frozen=True)
class WorkerPlan:
    """How many workers, and what each gets.

    Attributes:
        workers: Actors to start, at most.
        threads: Threads that each worker's numerical libraries use.
        gpus_per_worker: GPUs (or a fraction of one) reserved for each.
        cpus_per_worker: CPUs reserved for each in Ray's books; by default ``threads``. Less where more workers were
            asked for than there are CPUs.
    """

    workers: int
    threads: int
    gpus_per_worker: float = 0.0
    cpus_per_worker: float | None = None

    @property
    def cpus(self) -> float:
        """CPUs reserved for each worker."""
        return self.threads if self.cpus_per_worker is None else self.cpus_per_worker


@dataclass(frozen=True)
class Node:
    """What one machine of the cluster offers."""

    cpus: float
    gpus: float

    def holds(self, cpus: float, gpus: float) -> int:
        """How many workers of that size fit."""
        by_cpu = int(self.cpus / cpus + 1e-6)
        return min(by_cpu, int(self.gpus / gpus + 1e-6)) if gpus else by_cpu


@dataclass(frozen=True)
class Cluster:
    """A connected cluster."""

    address: str
    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    def split(
        self,
        workers: int | Literal["auto"] = "auto",
        threads: int | Literal["auto"] = "auto",
        gpus: float | Literal["auto"] = "auto",
        rows: int | None = None,
    ) -> WorkerPlan:
        """Chooses what the job file left to us.

        Without GPUs few workers of up to four threads; with GPUs one worker a GPU and its share of the CPUs. No more
        workers than the rows are worth (one for 256), for each loads the model.

        Args:
            workers: ``ray.workers``; a number is taken as it is, with CPUs shared out if there are too few.
            threads: ``ray.threads_per_worker``.
            gpus: ``ray.gpus_per_worker``; ``auto`` is one where the cluster has GPUs; 0 for work that needs none.
            rows: Rows to be worked on.

        Raises:
            JobError: No node can hold a worker's GPUs.
        """
        share = self._gpu_share(gpus)
        nodes = [node for node in self.nodes if node.cpus > 0 and node.gpus >= share]
        if not nodes:
            raise RunError(f"the Ray cluster at {self.address} has no node with a CPU to work on; add one")
        each = _auto_threads(nodes, workers, share) if isinstance(threads, str) else threads
        count = _auto_workers(nodes, each, share, rows) if isinstance(workers, str) else workers
        return WorkerPlan(count, each, share, _cpu_reservation(nodes, count, each, share))

    def _gpu_share(self, gpus: float | Literal["auto"]) -> float:
        most = max((node.gpus for node in self.nodes), default=0.0)
        if gpus == "auto":
            return 1.0 if most >= 1 else 0.0
        if gpus > 1 and gpus != int(gpus):
            raise JobError("ray.gpus_per_worker", f"{gpus:g} is neither a whole number nor a fraction of one GPU")
        if gpus > most:
            raise JobError(
                "ray.gpus_per_worker",
                f"{gpus:g} asked for, but no node of the cluster has more than {most:g}; use 0 or auto",
            )
        return float(gpus)


def _auto_threads(nodes: list[Node], workers: int | Literal["auto"], share: float) -> int:
    smallest = min(node.cpus for node in nodes)
    if share:
        each = min(node.cpus / max(1, int(node.gpus / share + 1e-6)) for node in nodes)
        return int(max(1, min(_MOST_GPU_THREADS, each)))
    if isinstance(workers, str):
        return int(max(1, min(_MOST_AUTO_THREADS, smallest)))
    return int(max(1, min(smallest, sum(node.cpus for node in nodes) // workers)))


def _auto_workers(nodes: list[Node], threads: int, share: float, rows: int | None) -> int:
    fitting = sum(node.holds(threads, share) for node in nodes)
    by_gpu = sum(int(node.gpus / share + 1e-6) for node in nodes) if share else 1
    worth = fitting + by_gpu if rows is None else max(1, ceil(rows / _ROWS_WORTH_A_WORKER))
    return min(max(fitting, by_gpu), worth)


def _cpu_reservation(nodes: list[Node], workers: int, threads: int, share: float) -> float:
    """The most CPUs, up to ``threads``, that may be reserved for each so that all workers are placed at once."""
    sizes = {float(threads)} | {node.cpus / count for node in nodes for count in range(1, workers + 1)}
    room = sum(int(node.gpus / share + 1e-6) for node in nodes) if share else workers
    wanted = min(workers, room)
    for size in sorted((size for size in sizes if size <= threads), reverse=True):
        cpus = float(int(size)) if size >= 1 and size == int(size) else int(size * 1000) / 1000
        if cpus > 0 and sum(node.holds(cpus, share) for node in nodes) >= wanted:
            return cpus
    return 0.001


@contextmanager
def connect(address: str = "local", *, cpus: int | None = None, gpus: int | None = None) -> Iterator[Cluster]:
    """Connects to Ray for the length of the block, and shuts down only what it started.

    ``local`` starts a Ray on this machine, except inside a submitted job, where it is ``auto``: such a job never
    starts a Ray of its own. ``auto`` and ``host:port`` join a running cluster. A process that is connected already
    goes on with its connection.

    Args:
        address: ``ray.address`` of the job file.
        cpus: CPUs of a Ray started here; by default this machine's.
        gpus: GPUs of a Ray started here; by default this machine's.

    Raises:
        JobError: The address is none of the three.
        RunError: The cluster that was asked for is not there, or Ray does not start.
    """
    where = "auto" if address == "local" and in_submitted_job() else address
    _check(where)
    if ray.is_initialized():
        _check_same(where)
        yield _describe(where)
        return
    _start(where, cpus, gpus)
    try:
        yield _describe(where)
    finally:
        with contextlib.suppress(Exception):
            ray.shutdown()


def in_submitted_job() -> bool:
    """Whether this process is the entrypoint of a job submitted to a cluster (which it then works on)."""
    try:
        config = json.loads(os.environ.get(_JOB_VARIABLE, "null"))
    except ValueError:
        return False
    return isinstance(config, dict)


def _check(address: str) -> None:
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address:
        raise JobError("ray.address", f"{address}: the driver runs inside the cluster; use host:port, auto or submit")
    if not host or not port.isdecimal():
        raise JobError("ray.address", f"{address!r} is none of local, auto, host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise RunError(f"no Ray cluster answers at {address} ({error}); start it or correct ray.address") from error


def _check_same(address: str) -> None:
    here = ray.get_runtime_context().gcs_address
    if address not in ("local", "auto", here):
        raise RunError(f"this process is connected to Ray at {here}, not {address}; use one cluster in one process")


def _log_instead_of_print(data: dict[str, Any], ignore_prefix: bool) -> None:
    """Takes the place of Ray's printer, which reports dead workers on stdout, where only results belong."""
    del ignore_prefix
    log.debug("%s: %s", data["pid"], " ".join(data["lines"]))


def _start(address: str, cpus: int | None, gpus: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's workers are nice by 15: of two threads that wait for each other, one would stand behind every other process.
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray_worker.print_to_stdstream = _log_instead_of_print
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    on_term = signal.getsignal(signal.SIGTERM)
    if address == "local":
        _choose_folder()
    try:
        if address == "local":
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except Exception as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        if address == "local":
            raise RunError(
                f"Ray did not start on this machine: {reason}; see {_own_folder()}/ray/session_latest/logs; run again "
                "when the machine is less busy, with fewer ray.workers or with RAY_TMPDIR set to another folder"
            ) from error
        if isinstance(error, ConnectionError) and address == "auto":
            reason = "no Ray runs on this machine"
        raise RunError(f"cannot join the Ray cluster {address}: {reason}; start it or correct ray.address") from error
    finally:
        _keep_handler(on_term)


def _own_folder() -> str:
    """Below which Ray keeps its sockets and logs."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or _SHORT_FOLDERS[0]


def _choose_folder() -> None:
    """Sees to it that Ray's sockets, whose paths may have 107 bytes, lie in a folder that is short and writable.

    Raises:
        RunError: There is none, or RAY_TMPDIR names one that is not.
    """
    own = _own_folder()
    if _fits(own):
        return
    short = next((folder for folder in _SHORT_FOLDERS if _fits(folder)), None)
    if os.environ.get("RAY_TMPDIR") or short is None:
        name = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"
        long = len(os.fsencode(own)) > _LONGEST_FOLDER
        wrong = "is too long for Ray's sockets" if long else "is no folder that may be written to"
        raise RunError(f"{name} ({own}) {wrong}; set RAY_TMPDIR to another, of at most {_LONGEST_FOLDER} characters")
    log.info("Ray's sockets do not fit into TMPDIR (%s) and are in %s", own, short)
    os.environ["RAY_TMPDIR"] = short


def _fits(folder: str) -> bool:
    """Whether the path is short enough for Ray's sockets and may be written to."""
    inside = Path(folder, "ray")
    there = [folder, str(inside)] if inside.exists() else [folder]
    return len(os.fsencode(folder)) <= _LONGEST_FOLDER and all(os.access(path, os.W_OK | os.X_OK) for path in there)


def _keep_handler(handler: Any) -> None:
    """Puts back what SIGTERM did before Ray took it: Prefect's way to a cancelled run, or the command's own."""
    if handler not in (None, signal.SIG_DFL) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _describe(address: str) -> Cluster:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Cluster(address, tuple(Node(float(each.get("CPU", 0)), float(each.get("GPU", 0))) for each in alive))
