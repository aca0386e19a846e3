"""Stages on a cluster that has nothing yet: Ray's autoscaler brings nodes, loses some, and gets them back."""

import json
import os
import subprocess
import sys

import pytest

from tests.infra.ray.autoscaling import cloud

FROM_ZERO = """
import json, os, sys, time
import ray
from ray._raylet import GcsClient
from barycenter.infra.dispatch.api import Work, dispatch
from barycenter.infra.ray.connection import connect
from tests.infra.ray.autoscaling import Cloud

class Slow:
    def run(self, payload):
        time.sleep(0.5)
        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")

cloud = Cloud(*sys.argv[1:3])
found = {}

def run(cluster, name, units, asked, gpus, seen=lambda node: None):
    workers = cluster.machines().allocate_workers(asked, 1, gpus, units * 256)
    done, where, lost = [], {}, []
    def on_done(work, value):
        done.append(work.payload)
        where.setdefault(value[0], value[1])
        seen(value[0])
    executor = cluster.executor(Slow, (), workers, name)
    work = [Work(str(n), n, 1) for n in range(units)]
    quarantined = dispatch(work, executor, on_done=on_done, on_lost=lambda worker: lost.append(worker.cause))
    found[name] = {
        "asked": workers.workers, "done": sorted(done) == list(range(units)), "nodes": len(where), "lost": lost,
        "quarantined": len(quarantined), "gpus": sorted({gpu for gpu in where.values() if gpu}),
    }

with connect(cloud.address) as cluster:
    run(cluster, "cpu", 24, 8, 0)
    drained = []
    def drain(node):
        if not drained:
            drained.append(node)
            deadline = int(time.time() * 1000) + 2000
            GcsClient(cloud.address).drain_node(node, 2, "taken away", deadline)
    run(cluster, "drained", 40, 3, 0, drain)
    killed = []
    def kill(node):
        if not killed:
            killed.append(node)
            cloud.lose(node)
    run(cluster, "killed", 40, 3, 0, kill)
    run(cluster, "gpu", 8, "auto", 1)
    while len([node for node in ray.nodes() if node["Alive"]]) > 1:
        time.sleep(0.5)
    found["given back"] = True
print(json.dumps(found))
"""


@pytest.mark.slow
def test_nodes_come_when_they_are_asked_for_and_go_when_they_are_not(tmp_path):
    with cloud({"cpu": ({"CPU": 1}, 3), "gpu": ({"CPU": 1, "GPU": 1}, 1)}) as running:
        script = [sys.executable, "-c", FROM_ZERO, running.address, running.mark]
        environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(script, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("cpu", "drained", "killed", "gpu"):
        assert (found[name]["done"], found[name]["quarantined"]) == (True, 0), found
    assert found["cpu"]["asked"] == 8
    assert 1 < found["cpu"]["nodes"] <= 4, "as many as can come"
    assert found["drained"]["lost"] in ([], ["node"])
    assert found["killed"]["lost"], "the worker that it held"
    assert found["gpu"]["gpus"] == ["0"]
    assert found["given back"]
