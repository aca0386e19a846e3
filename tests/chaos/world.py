"""A small world to break: a Ray cluster of two working nodes, a Prefect server, a job, and its runs as processes."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private import state
from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[2]
_POLL = 0.02


@dataclass(frozen=True)
class Actor:
    """A worker of some run: its name, process and node."""

    name: str
    pid: int
    node_id: str


def wait_until(condition: Callable[[], Any], seconds: float = 600.0) -> Any:
    """The first true answer, or None when time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(_POLL)
    return None


def actors(prefix: str) -> list[Actor]:
    """The living actors whose name begins with ``prefix``, whoever started them."""
    return [
        Actor(about["Name"] or about["ActorClassName"], about["Pid"], about["Address"]["NodeID"])
        for about in state.actors().values()
        if about["State"] == "ALIVE" and about["Pid"] and about["Name"].startswith(prefix)
    ]


class Nodes:
    """A Ray cluster in this machine: a head that does no work, and two nodes of one CPU each."""

    def __init__(self) -> None:
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 * 2**20},
        )
        self._nodes = [self._add() for _ in range(2)]
        self.address = self._cluster.address
        ray.init(self.address, log_to_driver=False, logging_level="ERROR")
        self._cluster.wait_for_nodes()

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)

    def kill(self, node_id: str | None) -> None:
        """Kills the raylet of one working node, by default of the first, with everything on it."""
        node = next((each for each in self._nodes if each.node_id == node_id), self._nodes[0])
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def mend(self) -> None:
        """Brings the working nodes to two again."""
        while len(self._nodes) < 2:
            self._nodes.append(self._add())
        self._cluster.wait_for_nodes()

    def close(self) -> None:
        """Ends the cluster."""
        ray.shutdown()
        self._cluster.shutdown()


class PrefectServer:
    """A Prefect server in a process of its own, on a port that stays the same when it is started again."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._home = home
        self.url = f"http://127.0.0.1:{self._port}/api"
        self.start()

    def start(self) -> None:
        """Starts it and waits until it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self._port), "--no-services"]
        environment = os.environ | {"PREFECT_HOME": str(self._home), "PREFECT_API_URL": self.url}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        if not wait_until(self._healthy):
            raise RuntimeError("the Prefect server did not start")

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def mend(self) -> None:
        """Starts it again if it is dead."""
        if self._process.poll() is not None:
            self.start()

    def kill(self) -> None:
        """Kills it and whatever it started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def start_run(job: Path, prefect_url: str | None = None, *flags: str) -> subprocess.Popen[str]:
    """``barycenter run JOB`` as a process of its own; the Prefect client gives a dead server up after one more try."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_CLIENT_MAX_RETRIES": "1"}
    if prefect_url is not None:
        environment["PREFECT_API_URL"] = prefect_url
    command = [sys.executable, "-m", "barycenter.flows.cli", "run", str(job), *flags]
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def world(home: Path) -> Iterator[tuple[Nodes, PrefectServer]]:
    """Both, and their end."""
    server = PrefectServer(home / "prefect")
    try:
        nodes = Nodes()
        try:
            yield nodes, server
        finally:
            nodes.close()
    finally:
        server.kill()
