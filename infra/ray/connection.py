"""The Ray cluster a run works on: started here, or joined; never one for the other."""

import contextlib
import json
import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray

from barycenter.fusion.errors import JobError, RunError
from barycenter.fusion.machine_limits import whole_cpus
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.ray.guard import guarded
from barycenter.infra.ray.private import (
    autoscaling,
    draining_nodes,
    node_groups,
    session_folder,
    silence_worker_output,
)
from barycenter.infra.ray.sizing import Machines, Node, NodeGroup
from barycenter.infra.storage.errors import first_line

log = logging.getLogger(__name__)

_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_OBJECT_STORE_BYTES = 256 * 2**20
_LONGEST_FOLDER = 36
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


@contextmanager
def connect(
    address: str = "local", *, cpus: int | None = None, gpus: int | None = None, start_seconds: float = 1800.0
) -> Iterator[Cluster]:
    """Connects to Ray for the length of the block, and shuts down only what it started.

    ``local`` starts a Ray on this machine, except inside a submitted job, where it is ``auto``: such a job never
    starts a Ray of its own. ``auto`` and ``host:port`` join a running cluster. A process that is connected already
    goes on with its connection. A Ray started here has the CPUs that this process may use and the machine's GPUs, if no
    others are given. ``start_seconds``: how long a stage waits for its first worker, and for nodes to come.

    Raises:
        JobError: The address is none of the three.
        RunError: The cluster that was asked for is not there, or Ray does not start.
    """
    where = "auto" if address == "local" and in_submitted_job() else address
    _check(where)
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if where not in ("local", "auto", here):
            raise RunError(f"this process is connected to Ray at {here}, not {where}; use one cluster in one process")
        yield Cluster(where, partial(_machines, where), start_seconds)
        return
    _start(where, cpus, gpus)
    with guarded(session_folder() if where == "local" else None):
        try:
            yield Cluster(where, partial(_machines, where), start_seconds)
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
        raise JobError("ray.address", f"{address!r} is neither local, auto nor host:port; write one of them")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise RunError(f"no Ray cluster answers at {address} ({error}); start it or correct ray.address") from error


def _start(address: str, cpus: int | None, gpus: int | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's workers are nice by 15: of two threads that wait for each other, one would wait for every other process.
    os.environ.setdefault("RAY_worker_niceness", "0")
    silence_worker_output()
    on_term = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {}
    if address == "local":
        _choose_ray_folder()
        own = {"num_cpus": cpus or whole_cpus(), "num_gpus": gpus, "object_store_memory": _OBJECT_STORE_BYTES}
        own["include_dashboard"] = False
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except Exception as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        reason = first_line(error, 300)
        if address == "local":
            raise RunError(
                f"Ray did not start on this machine: {reason}; see {_ray_folder()}/ray/session_latest/logs; run again "
                "when the machine is less busy, with fewer ray.workers or with RAY_TMPDIR set to another folder"
            ) from error
        none_runs = isinstance(error, ConnectionError) and address == "auto"
        why = "no Ray runs on this machine" if none_runs else reason
        raise RunError(f"cannot join the Ray cluster {address}: {why}; start it or correct ray.address") from error
    finally:
        _restore_handler(on_term)


def _ray_folder() -> str:
    """Below which Ray keeps its sockets and logs."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or _SHORT_FOLDERS[0]


def _choose_ray_folder() -> None:
    """Sees to it that Ray's sockets, whose paths may have 107 bytes, lie in a folder that is short and writable."""
    own = _ray_folder()
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


def _restore_handler(handler: Any) -> None:
    """Puts back what SIGTERM did before Ray took it: Prefect's way to a cancelled run, or the command's own."""
    if handler not in (None, signal.SIG_DFL) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _machines(address: str) -> Machines:
    """What the cluster has now, without nodes that are about to go, and what it may get."""
    leaving = draining_nodes()
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    nodes = tuple(_node(each) for each in alive)
    if address == "local":
        return Machines(address, nodes, own=True)
    groups = tuple(NodeGroup(_node(resources), most) for resources, most in node_groups())
    return Machines(address, nodes, groups, grows=autoscaling() is not None)


def _node(resources: Mapping[str, float]) -> Node:
    return Node(
        float(resources.get("CPU", 0)), float(resources.get("GPU", 0)), float(resources.get("memory", math.inf))
    )
