"""A job submitted to three Ray nodes that share no process: it completes, also when a node dies, with the same bytes.

The nodes are separate ``ray start`` processes, each in a network namespace of its own where this may make them (root
and ``ip``), else on ports of their own. The ratio claimed is 1: files equal to those of a local run.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import ROOT, finish, minilm, missing, note, shared, versions

ROWS = 768
_BRIDGE, _NET = "bary0", "10.213.7"
_TOKEN = "0123456789abcdef0123456789abcdef"


def _name(number: int) -> str:
    """A node's namespace; namespaces have names in one folder of the machine."""
    return f"bary{os.getpid()}n{number}"


class Node:
    """One Ray node: a ``ray start --block`` in a namespace, or beside the others."""

    def __init__(self, number: int, folder: Path, separate: bool) -> None:
        self.number, self.separate = number, separate
        self.folder = folder / f"node{number}"
        self.host = f"{_NET}.{number + 1}" if separate else "127.0.0.1"
        self.inside = ["ip", "netns", "exec", _name(number)] if separate else []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, head: "Node") -> None:
        """Starts it and waits until it runs."""
        ports = 20000 + 1000 * self.number
        words = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            "--num-cpus=1",
            "--disable-usage-stats",
        ]
        words += [f"--node-ip-address={self.host}", "--object-store-memory=134217728"]
        words += [f"--min-worker-port={ports}", f"--max-worker-port={ports + 199}"]
        words += [f"--temp-dir={self.folder}"]
        if self is head:
            words += ["--head", "--port=26379", f"--dashboard-host={self.host}", "--dashboard-port=28265"]
        else:
            words += [f"--address={head.host}:26379"]
        environment = environ() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*self.inside, *words],
                env=environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Ends every process of the node at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None
        if self.separate:
            asked = ["ip", "netns", "pids", _name(self.number)]
            pids = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
            for pid in pids.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)


@contextmanager
def namespaces(count: int) -> Iterator[bool]:
    """Network namespaces on one bridge, if this machine lets us make them."""
    commands = [f"ip link add {_BRIDGE} type bridge", f"ip addr add {_NET}.254/24 dev {_BRIDGE}"]
    commands += [f"ip link set {_BRIDGE} up"]
    for number in range(count):
        commands += [
            f"ip netns add {_name(number)}",
            f"ip link add baryv{number} type veth peer name eth0 netns {_name(number)}",
            f"ip link set baryv{number} master {_BRIDGE}",
            f"ip link set baryv{number} up",
            f"ip -n {_name(number)} addr add {_NET}.{number + 1}/24 dev eth0",
            f"ip -n {_name(number)} link set eth0 up",
            f"ip -n {_name(number)} link set lo up",
        ]
    try:
        made = shutil.which("ip") is not None and all(
            subprocess.run(command.split(), capture_output=True, check=False).returncode == 0 for command in commands
        )
        yield made
    finally:
        if shutil.which("ip") is not None:
            for number in range(count):
                subprocess.run(["ip", "netns", "del", _name(number)], capture_output=True, check=False)
                subprocess.run(["ip", "link", "del", f"baryv{number}"], capture_output=True, check=False)
            subprocess.run(["ip", "link", "del", _BRIDGE], capture_output=True, check=False)


def environ() -> dict[str, str]:
    """This environment without what would tie the parts together."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return kept | {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


def write_corpus(folder: Path) -> Path:
    """The first rows of the emoji corpus."""
    source = shared("data/emojitwo/metadata.jsonl")
    rows = [json.loads(line) for line in source.read_text().splitlines()[:ROWS]]
    corpus = folder / "rows.jsonl"
    for row in rows:
        row["image"] = str(source.parent / "images" / row["image"])
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return corpus


def job(folder: Path, name: str, model: Path) -> Path:
    """A job over the emoji corpus: real text encoder, small picture encoder, many shards."""
    data: dict[str, Any] = {
        "name": "three-nodes",
        "corpus": {"path": str(folder / "rows.jsonl"), "key": "id", "rows_per_shard": 32},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": str(model), "batch": 1024},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor", "batch": 32},
        },
        "alignment": {"method": "joint", "dim": 64},
        "output": {"path": str(folder / name)},
        "limits": {"outside_corpus": True},
        "ray": {"threads_per_worker": 1, "workers": 2 if name == "local" else 3},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def digest(folder: Path) -> str:
    """Of every feature and alignment file and of the vectors of every embedding file, by name."""
    content = hashlib.sha256()
    for path in [path for part in ("features", "alignment") for path in sorted((folder / part).rglob("*"))]:
        if path.suffix in (".parquet", ".safetensors"):
            content.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    for path in sorted((folder / "embeddings").glob("[!.]*/*/*.parquet")):
        vectors = pq.read_table(path, columns=["vector"], partitioning=None).column("vector").combine_chunks().flatten()
        content.update(path.relative_to(folder).as_posix().encode() + vectors.to_numpy().tobytes())
    return content.hexdigest()


def command(*words: str, inside: list[str] | None = None, extra: dict[str, str] | None = None) -> list[str]:
    return [*(inside or []), "env", *(f"{name}={value}" for name, value in (extra or {}).items()),
            sys.executable, "-m", "barycenter.flows.cli", *words]  # fmt: skip


def main() -> None:
    model = minilm()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bary")))
        write_corpus(folder)
        separate = stack.enter_context(namespaces(3))
        note("nodes in", "network namespaces of their own" if separate else "one network, with ports of their own")
        start = time.monotonic()
        words = command("run", str(job(folder, "local", model)))
        subprocess.run(words, env=environ(), cwd=ROOT, check=True, stdout=sys.stderr)
        local = time.monotonic() - start
        nodes = [Node(number, folder, separate) for number in range(3)]
        for node in nodes:
            stack.callback(node.kill)
        submitted, _ = submit(folder, "submitted", model, nodes)
        lost, killed_at = submit(folder, "lost", model, nodes, kill=nodes[2])
        results = {name: digest(folder / name) for name in ("local", "submitted", "lost")}
    note(results)
    finish(
        {
            "benchmark": "cluster", "nodes": 3, "namespaces": separate, "rows": ROWS,
            "local_seconds": round(local, 1), "submit_seconds": round(submitted, 1),
            "submit_with_a_node_killed_seconds": round(lost, 1), "shards_done_at_the_kill": killed_at,
            "equal_bytes": len(set(results.values())) == 1, "versions": versions("ray", "prefect", "torch"),
        }
    )  # fmt: skip
    raise SystemExit(0 if len(set(results.values())) == 1 else 1)


def submit(folder: Path, name: str, model: Path, nodes: list[Node], kill: Node | None = None) -> tuple[float, int]:
    """Submits and waits; kills a node once some shards are done. Seconds, and shards done at the kill."""
    head = nodes[0]
    for node in nodes:
        if node.process is None:
            node.start(head)
            time.sleep(8 if node is head else 2)
    address = f"http://{head.host}:28265"
    extra = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    words = command("submit", str(job(folder, name, model)), "--address", address, inside=head.inside, extra=extra)
    start = time.monotonic()
    process = subprocess.Popen(words, env=environ(), cwd=ROOT, stdout=sys.stderr)
    done = 0
    while process.poll() is None:
        if kill is not None and (done := len(list((folder / name / "embeddings").glob("[!.]*/*/*.parquet")))) >= 6:
            note(f"killing node {kill.number} after {done} shards")
            kill.kill()
            kill = None
            break
        time.sleep(0.1)
    if kill is not None:
        missing(f"the run ended before node {kill.number} could be killed")
    if process.wait():
        note((head.folder / "log").read_text()[-2000:])
        missing(f"submit ended with {process.returncode}")
    return time.monotonic() - start, done


if __name__ == "__main__":
    main()
