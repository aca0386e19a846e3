"""A Ray that was started by hand, with a dashboard that takes jobs."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.flows.test_cancellation import children
from tests.infra.dispatch.test_api import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ray_head(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Its dashboard's address and its folder; it ends with the block, its workers with it."""
    ports = [free_port() for _ in range(2)]
    words = ["--block", "--head", "--node-ip-address=127.0.0.1", f"--port={ports[0]}", f"--dashboard-port={ports[1]}"]
    words += ["--num-cpus=2", "--object-store-memory=134217728", "--dashboard-agent-listen-port=0"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *words, f"--temp-dir={folder}"],
                env={**os.environ, **environment, "PATH": path}, stdout=stream, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            assert wait_until(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{ports[1]}", Path(folder)
        finally:
            for pid in [process.pid, *children(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(30)
