"""A cluster of Ray's autoscaler and its fake provider: nodes are processes of this machine, started on demand."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD = "f" * 51 + "00000"
_HEAD_TYPE = "ray.head.default"
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_EMPTY = {
    "auth": {}, "docker": {}, "initialization_commands": [], "setup_commands": [], "head_setup_commands": [],
    "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [], "file_mounts": {},
    "cluster_synced_files": [], "file_mounts_sync_continuously": False, "rsync_exclude": [], "rsync_filter": [],
}  # fmt: skip
_MARK = "BARYCENTER_TEST_CLOUD"
_OBJECT_STORE = 80 * 2**20


@dataclass(frozen=True)
class Cloud:
    """A running one: the address of its head, which does no work, and the mark of its processes."""

    address: str
    mark: str

    def processes(self) -> list[int]:
        """The living processes of all its nodes, oldest first."""
        marked = f"{_MARK}={self.mark}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if marked in (folder / "environ").read_bytes():
                    found.append(
                        (float((folder / "stat").read_text().rpartition(")")[2].split()[19]), int(folder.name))
                    )
        return [process for _, process in sorted(found)]

    def lose(self, node: str) -> None:
        """Kills all processes of the node of this id at once."""
        named = f"RAY_OVERRIDE_NODE_ID_FOR_TESTING={node}".encode()
        raylet = next(process for process in self.raylets() if named in Path(f"/proc/{process}/environ").read_bytes())
        for process in [raylet, *_children(raylet)]:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)

    def raylets(self) -> list[int]:
        """Those of the nodes that were started on demand, oldest first."""
        names = {process: _name(process) for process in self.processes()}
        return [process for process, name in names.items() if name == "raylet"][1:]


def _name(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip()
    return ""


def _children(process: int) -> list[int]:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in listed]


@contextmanager
def cloud(groups: Mapping[str, tuple[Mapping[str, float], int]], idle_seconds: float = 3.0) -> Iterator[Cloud]:
    """Runs a head without CPUs, and an autoscaler that starts nodes of the groups: resources, and how many at most."""
    mark = uuid.uuid4().hex
    port = _free_port()
    here = _own_address()
    address = f"{here}:{port}"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text(json.dumps(_config(address, groups, idle_seconds)))
        options = {"head": True, "port": port, "num-cpus": 0, "num-gpus": 0, "object-store-memory": _OBJECT_STORE}
        options |= {
            "autoscaling-config": config,
            "include-dashboard": "false",
            "node-ip-address": here,
            "temp-dir": folder,
        }
        arguments = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
        command = [str(Path(sys.executable).with_name("ray")), "start", *arguments]
        running = Cloud(address, mark)
        try:
            subprocess.run(command, env=_environment(mark), check=True, capture_output=True, text=True, timeout=300)
            yield running
        finally:
            while processes := running.processes():
                for process in processes:
                    with suppress(OSError):
                        os.kill(process, signal.SIGKILL)
                        os.waitpid(process, os.WNOHANG)


def _config(address: str, groups: Mapping[str, tuple[Mapping[str, float], int]], idle: float) -> dict[str, Any]:
    kinds = {
        name: {
            "resources": {"object_store_memory": _OBJECT_STORE, **resources},
            "node_config": {},
            "min_workers": 0,
            "max_workers": most,
        }
        for name, (resources, most) in groups.items()
    }
    head = {_HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}}
    provider = {"type": "external", "module": _PROVIDER, "launch_multiple": True}
    return _EMPTY | {
        "cluster_name": "test",
        "max_workers": sum(most for _, most in groups.values()),
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": idle / 60,
        "provider": provider | {"head_node_id": _HEAD, "gcs_address": address},
        "available_node_types": head | kinds,
        "head_node_type": _HEAD_TYPE,
    }


def _environment(mark: str) -> dict[str, str]:
    return os.environ | {
        _MARK: mark,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": _HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }


def _own_address() -> str:
    """This machine's address as others see it: the fake nodes do not come up on that of the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect(("192.0.2.1", 9))  # sends nothing
        return str(route.getsockname()[0])


def _free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("", 0))
        return int(chosen.getsockname()[1])
