"""An hour of one run under faults: do its driver and its workers grow?

A run from the command line, with a Prefect server of its own, embeds two columns of texts side by side in small shards
on three nodes of Ray's autoscaler and writes to an S3 server in another process. Every minute something breaks: a
worker is killed, a node is killed, or the S3 server stands still for some seconds. Measured: by how much memory, file
descriptors and threads of the driver and of its workers grow over the last two thirds, as the slope of a line through
the samples. The aim is 1 %. Neither column ends within the hour, for what follows embedding takes memory of its own.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
os.environ |= {"RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"}

import numpy as np

from benchmarks.harness import ROOT, finish, minilm, note, table, versions
from tests.infra.ray.autoscaling import Cloud, cloud

SECONDS = float(os.environ.get("SECONDS", "3600"))
FAULT_EVERY = float(os.environ.get("FAULT_EVERY", "60"))
STALL, SAMPLE_EVERY = 6.0, 5.0
ROWS = int(os.environ.get("ROWS", "2000000"))
A_SHARD, WORDS = 64, 12
INPUTS = {"text": "float32", "title": "bfloat16"}
"""Columns and the number formats of their encoder; with one encoder the second would wait for the first."""
SERVER = "import sys; from moto.server import main; main(sys.argv[1:])"


def write_corpus(path: Path) -> None:
    """Two texts of some random words in each row."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    with path.open("w") as file:
        for number in range(ROWS):
            texts = {name: " ".join(draw.choices(words, k=WORDS)) for name in INPUTS}
            file.write(json.dumps({"id": number, **texts}) + "\n")


def write_job(folder: Path, address: str, endpoint: str) -> Path:
    """The job file; JSON is YAML."""
    job = {
        "name": "soak",
        "corpus": {"path": str(folder / "rows.jsonl"), "key": "id", "rows_per_shard": A_SHARD},
        "inputs": {
            name: {"kind": "text", "column": name, "encoder": str(minilm()), "dtype": dtype}
            for name, dtype in INPUTS.items()
        },
        "output": {"path": "s3://soak/out"},
        "storage": {"endpoint_url": endpoint},
        "ray": {"address": address, "workers": {"max": 3}, "threads_per_worker": 1},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def workers_of(running: Cloud) -> list[int]:
    """The processes that hold an encoder."""
    found = []
    for process in running.processes():
        with suppress(OSError):
            if b"ray::EmbedWorker" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
    return found


def sampled(process: int) -> dict[str, float] | None:
    """Memory that it alone wrote to in MiB, descriptors and threads; None of a process that is gone.

    Pages of libraries count only if written to: the others come and go with the processes that share them.
    """
    with suppress(OSError, ValueError, StopIteration):
        folder = Path(f"/proc/{process}")
        rollup = (folder / "smaps_rollup").read_text().splitlines()
        private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty"))
        return {
            "memory": private / 1024,
            "descriptors": len(list((folder / "fd").iterdir())),
            "threads": len(list((folder / "task").iterdir())),
        }
    return None


def slope(samples: list[tuple[float, float]]) -> dict[str, float]:
    """Percent of the mean by which a line through the samples rises in an hour, and the mean."""
    times, values = np.array(samples).T
    rise = float(np.polyfit(times, values, 1)[0]) * 3600 if len(samples) > 1 else 0.0
    return {"mean": float(values.mean()), "percent_an_hour": 100 * rise / float(values.mean())}


class Faults:
    """What breaks, one after another."""

    def __init__(self, running: Cloud, server: subprocess.Popen[bytes]) -> None:
        self._running, self._server = running, server
        self.done: dict[str, int] = {"worker killed": 0, "node killed": 0, "storage stalled": 0}

    def next(self) -> None:
        """Breaks the next."""
        acts: list[Callable[[], None]] = [self._kill_worker, self._kill_node, self._stall]
        name = list(self.done)[sum(self.done.values()) % 3]
        acts[list(self.done).index(name)]()
        self.done[name] += 1

    def _kill_worker(self) -> None:
        for process in workers_of(self._running)[:1]:
            os.kill(process, signal.SIGKILL)

    def _kill_node(self) -> None:
        for process in self._running.raylets()[:1]:
            os.kill(process, signal.SIGKILL)

    def _stall(self) -> None:
        self._server.send_signal(signal.SIGSTOP)
        time.sleep(STALL)
        self._server.send_signal(signal.SIGCONT)


def watch(driver: subprocess.Popen[bytes], running: Cloud, faults: Faults) -> dict[str, list[tuple[float, float]]]:
    """Samples and breaks until the time is over; ends the driver."""
    samples: dict[str, list[tuple[float, float]]] = {}
    began = broke = time.monotonic()
    while (now := time.monotonic()) - began < SECONDS:
        if driver.poll() is not None:
            raise SystemExit(f"the run ended by itself with {driver.returncode} after {now - began:.0f} s")
        processes = {"driver": [driver.pid], "worker": workers_of(running)}
        for kind, ids in processes.items():
            found = [about for about in map(sampled, ids) if about is not None]
            for name in found[0] if found else ():
                value = sum(about[name] for about in found) / len(found)
                samples.setdefault(f"{kind} {name}", []).append((now - began, value))
        if now - broke >= FAULT_EVERY:
            broke = now
            faults.next()
        time.sleep(SAMPLE_EVERY)
    driver.terminate()
    driver.wait()
    return samples


def serve(port: int) -> tuple[subprocess.Popen[bytes], str]:
    """An S3 server in another process, with a bucket."""
    import s3fs

    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    endpoint = f"http://127.0.0.1:{port}"
    for _ in range(60):
        with suppress(Exception):
            s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True).mkdir("soak")
            return server, endpoint
        time.sleep(1)
    raise SystemExit("the S3 server does not start")


def main() -> None:
    """Prints slopes, faults and rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "rows.jsonl")
        server, endpoint = serve(5917)
        try:
            with cloud({"cpu": ({"CPU": 1}, 3)}) as running, (folder / "log").open("wb") as log:
                job = write_job(folder, running.address, endpoint)
                command = [sys.executable, "-m", "barycenter.flows.cli", "run", str(job)]
                driver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
                faults = Faults(running, server)
                try:
                    samples = watch(driver, running, faults)
                finally:
                    driver.kill()
                    lines = (folder / "log").read_text().splitlines()
                    note("\n".join(lines[-5:]))
        finally:
            server.kill()
    late = {kind: slope([each for each in all_ if each[0] >= SECONDS / 3]) for kind, all_ in samples.items()}
    rows = [line for line in lines if line.startswith("embed text: ") and " rows" in line]
    table([{"what": kind, **about} for kind, about in late.items()])
    figures: dict[str, Any] = {"seconds": SECONDS, "slopes": late, "faults": faults.done, "last line": rows[-1:]}
    finish(figures | {"lost": sum("was lost" in line for line in lines), **versions("ray", "prefect", "torch", "s3fs")})


if __name__ == "__main__":
    main()
