"""Jobs on a cluster that has nothing yet, and inputs side by side against one after another.

Nodes are processes that Ray's autoscaler starts through its fake provider; all share this machine's cores. Claimed: the
features of the demo and of the emoji are those of a local run, byte for byte, whatever nodes come and go; two inputs
take as long as the slower one where there is room for both, and no longer than one after another on this machine.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ |= {"RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"}

import ray

from barycenter.infra.demo import demo_job, write_demo_corpus
from barycenter.infra.dispatch.api import Work, dispatch
from barycenter.infra.dispatch.shares import Share, Shares
from barycenter.infra.job.models import Job
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.ray.connection import connect
from barycenter.tasks.pipeline import PLAIN, Figures, Stages, run_job
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.context import Run
from benchmarks.cluster import digest
from benchmarks.harness import finish, in_new_process, median, minilm, note, sample, shared, table, versions
from tests.infra.ray.autoscaling import Cloud, cloud

ROUNDS = int(os.environ.get("ROUNDS", "3"))
GROUPS = {"cpu": ({"CPU": 1}, 3), "gpu": ({"CPU": 1, "GPU": 1}, 1)}
UNIT_SECONDS = 0.5
LOSS_EVERY = float(os.environ.get("LOSS_EVERY", "30"))


class OneAfterAnother(Stages):
    """The stages with inputs embedded one after another, each with all workers."""

    def embed_inputs(self, run: Run, cluster: Cluster) -> Figures:
        return {f"embed {name}": self.embed(run, name, cluster) for name in run.inputs}


def job(kind: str, folder: Path, out: Path, ray_job: dict[str, Any]) -> Job:
    """The demo, or the emoji with MiniLM and MobileNetV2."""
    if kind == "demo":
        return Job.model_validate(demo_job(write_demo_corpus(folder / "demo"), out) | {"ray": ray_job})
    emoji = shared("data/emojitwo/metadata.jsonl")
    weights = shared("weights/mobilenet_v2/mobilenet_v2.safetensors")
    image = {"kind": "image", "column": "image", "encoder": "torchvision/mobilenet_v2", "weights": str(weights)}
    return Job.model_validate(
        {
            "name": "emoji",
            "corpus": {"path": str(emoji), "key": "id", "keep": ["label", "base"], "rows_per_shard": 128},
            "inputs": {"text": {"kind": "text", "column": "text", "encoder": str(minilm())}, "image": image},
            "output": {"path": str(out)},
            "train": {"target": "label", "group_by": "base"},
            "ray": ray_job,
        }
    )


def run_one(kind: str, folder: str, name: str, address: str, order: str) -> dict[str, Any]:
    """Runs a job in this process; seconds of embedding and of all, the nodes that there were, the features' digest."""
    asked = {"address": address} | ({} if address == "local" else {"workers": {"max": 4}})
    began = time.monotonic()
    nodes: list[tuple[float, int]] = []
    out = Path(folder, name)
    run = prepare(job(kind, Path(folder), out, asked))
    with connect(address, start_seconds=600) as cluster, watched(nodes, began):
        stages = OneAfterAnother() if order == "one after another" else PLAIN
        embedding: list[float] = []

        def embed_inputs(run: Run, cluster: Cluster) -> Figures:
            start = time.monotonic()
            figures = stages.embed_inputs(run, cluster)
            embedding.append(time.monotonic() - start)
            return figures

        timed = Stages()
        object.__setattr__(timed, "embed_inputs", embed_inputs)
        report = run_job(run, cluster, timed)
        seconds = time.monotonic() - began
        while address != "local" and _nodes() > 0:
            time.sleep(0.5)
    workers = {name: about.get("workers_lost") for name, about in report["speed"].items() if "embed" in name}
    return {"seconds": seconds, "embed": embedding[0], "nodes": nodes, "digest": digest(out), "lost": workers}


def _nodes() -> int:
    return sum(bool(node["Alive"] and node["Resources"].get("CPU")) for node in ray.nodes())


@contextmanager
def watched(nodes: list[tuple[float, int]], began: float) -> Iterator[None]:
    """Notes when the number of working nodes changes, on one thread, while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.25):
            with suppress(Exception):
                count = _nodes()
                if not nodes or nodes[-1][1] != count:
                    nodes.append((round(time.monotonic() - began, 1), count))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Sleeping:
    """A worker that imagines its work."""

    def run(self, payload: int) -> int:
        """Takes the time of a unit."""
        time.sleep(UNIT_SECONDS)
        return payload


def imagined(address: str, order: str) -> dict[str, Any]:
    """Two dispatches of 40 and 80 units: seconds together, and of the larger alone with three quarters of the nodes."""
    units = {"small": 40, "large": 80}
    with connect(address, start_seconds=600) as cluster:
        allocation = cluster.machines().allocate_workers(4, 1, 0)

        def run(name: str, share: Share | None = None) -> float:
            start = time.monotonic()
            work = [Work(f"{name} {number}", number, 1) for number in range(units[name])]
            if share is not None:
                share.begin("cpu", 4, 4, units[name])

            def on_done(_: Work, value: int) -> None:
                del value
                if share is not None:
                    share.advance(1)

            dispatch(work, cluster.executor(Sleeping, (), allocation, name), on_done=on_done, share=share)
            if share is not None:
                share.end()
            return time.monotonic() - start

        run("small")  # the nodes come
        start = time.monotonic()
        if order == "side by side":
            shares = Shares(units)
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda name: run(name, shares.of(name)), units))
        else:
            for name in units:
                run(name)
        return {"seconds": time.monotonic() - start, "ideal": sum(units.values()) * UNIT_SECONDS / 4}


@contextmanager
def losing(running: Cloud, every: float) -> Iterator[list[int]]:
    """Kills the youngest node every so many seconds."""
    over, killed = threading.Event(), []

    def lose() -> None:
        while not over.wait(every):
            for process in running.raylets()[-1:]:
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def here(kind: str, folder: Path, name: str, address: str, order: str = "side by side") -> dict[str, Any]:
    done: dict[str, Any] = in_new_process("elastic", "run_one(*sys.argv[1:])", kind, folder, name, address, order)
    seconds = f"{done['seconds']:.1f} s, embedding {done['embed']:.1f} s"
    note(f"{kind}, {name}: {seconds}; features {done['digest'][:12]}; nodes {done['nodes']}")
    return done


def clusters(folder: Path) -> dict[str, Any]:
    """The demo and the emoji: locally, on a cluster from zero, there with nodes lost, and two jobs at once."""
    found: dict[str, Any] = {}
    for kind in ("demo", "emoji"):
        local = here(kind, folder, f"{kind}-local", "local")
        with cloud(GROUPS) as running:
            grown = here(kind, folder, f"{kind}-grown", running.address)
        found[kind] = {"local": local, "grown": grown}
    with cloud(GROUPS) as running, losing(running, LOSS_EVERY) as killed:
        found["emoji"]["losing"] = here("emoji", folder, "emoji-losing", running.address)
        found["emoji"]["killed"] = len(killed)
    with cloud(GROUPS) as running, ThreadPoolExecutor(2) as pool:
        names = ("two-a", "two-b")
        both = list(pool.map(lambda name: here("demo", folder, name, running.address), names))
        found["two jobs"] = {
            name: each["digest"] == found["demo"]["local"]["digest"] for name, each in zip(names, both, strict=True)
        }
    return found


def makespans(folder: Path) -> dict[str, Any]:
    """Side by side and one after another, interleaved: emoji on this machine, imagined work on four nodes."""
    orders = ("one after another", "side by side")
    emoji: dict[str, list[float]] = {order: [] for order in orders}
    sleeping: dict[str, list[float]] = {order: [] for order in orders}
    ideal = 0.0
    for number in range(ROUNDS):
        for order in orders if number % 2 else orders[::-1]:
            emoji[order].append(here("emoji", folder, f"{order}-{number}".replace(" ", "-"), "local", order)["embed"])
    for number in range(ROUNDS):
        for order in orders if number % 2 else orders[::-1]:
            with cloud({"cpu": ({"CPU": 1}, 4)}) as running:
                done = in_new_process("elastic", "imagined(*sys.argv[1:])", running.address, order)
            sleeping[order].append(done["seconds"])
            ideal = done["ideal"]
            note(f"imagined work on four nodes, {order}: {done['seconds']:.1f} s (ideal {ideal:.1f})")
    medians = {"two cores": emoji, "four nodes": sleeping}
    for where, each in medians.items():
        for order, values in each.items():
            for value in values:
                sample(f"{where}, {order}", round(value, 2))
    found = {where: {order: median(values) for order, values in each.items()} for where, each in medians.items()}
    for each in found.values():
        each["ratio"] = each["side by side"] / each["one after another"]
    return found | {"ideal on four nodes": ideal}


def main() -> None:
    """Prints the timelines and the makespans."""
    parts: dict[str, Callable[[Path], dict[str, Any]]] = {"clusters": clusters, "makespans": makespans}
    wanted = os.environ.get("PARTS", ",".join(parts)).split(",")
    with tempfile.TemporaryDirectory() as folder:
        found = {name: parts[name](Path(folder)) for name in wanted}
    figures: dict[str, Any] = {"n": ROUNDS, **versions("ray", "torch")}
    if "clusters" in found:
        demo, emoji = found["clusters"]["demo"], found["clusters"]["emoji"]
        equal = {
            kind: each["local"]["digest"] == each["grown"]["digest"]
            for kind, each in (("demo", demo), ("emoji", emoji))
        }
        equal["emoji, losing nodes"] = emoji["losing"]["digest"] == emoji["local"]["digest"]
        figures["equal bytes"] = equal | found["clusters"]["two jobs"]
        figures["nodes lost"] = emoji["killed"]
        figures["seconds"] = {
            f"{kind} {name}": round(each[name]["seconds"], 1)
            for kind, each in (("demo", demo), ("emoji", emoji))
            for name in ("local", "grown", "losing")
            if name in each
        }
        figures["timeline"] = {
            "demo": demo["grown"]["nodes"],
            "emoji": emoji["grown"]["nodes"],
            "losing": emoji["losing"]["nodes"],
        }
    if "makespans" in found:
        figures["makespans"] = found["makespans"]
        table([{"where": where, **each} for where, each in found["makespans"].items() if isinstance(each, dict)])
    finish(figures)


if __name__ == "__main__":
    main()
