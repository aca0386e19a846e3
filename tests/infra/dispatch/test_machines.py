import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from tests.infra.dispatch.test_api import wait_until

SIGNALED = """
import os, sys, time
from pathlib import Path
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.ray.connection import connect
from barycenter.infra.ray.executor import RayExecutor
from barycenter.infra.dispatch.api import Work, dispatch

class Sleeper:
    def run(self, folder):
        Path(folder, str(os.getpid())).touch()
        time.sleep(600)

with connect(sys.argv[1]):
    executor = RayExecutor(Sleeper, (), WorkerAllocation(2, 1), "sleep")
    dispatch([Work(str(n), sys.argv[2], 1) for n in range(4)], executor, on_done=lambda work, value: None)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_driver(ray_session, tmp_path, number):
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen([sys.executable, "-c", SIGNALED, address, str(tmp_path)], stderr=subprocess.PIPE)
    try:
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        pids = [int(path.name) for path in tmp_path.iterdir()]
        driver.send_signal(number)
        assert driver.wait(15) != 0
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    finally:
        driver.kill()
        driver.communicate()


GPUS = """
import json, os, sys, time
from pathlib import Path
import ray
from barycenter.infra.ray.connection import connect
from barycenter.infra.dispatch.api import Work, dispatch

class Model:
    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    def run(self, payload):
        while len(list(self.folder.iterdir())) < 4:
            time.sleep(0.05)
        return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], ray.get_gpu_ids()

with connect("local", cpus=2, gpus=2) as cluster:
    workers = cluster.machines().allocate_workers(gpus=0.5)
    done = []
    dispatch([Work(str(n), None, 1) for n in range(24)], cluster.executor(Model, (sys.argv[1],), workers, "gpu"),
             on_done=lambda work, value: done.append(value))
    print(json.dumps([workers.workers, workers.threads, done]))
"""


@pytest.mark.slow
def test_four_workers_share_two_gpus(tmp_path):
    script = [sys.executable, "-c", GPUS, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    workers, threads, results = json.loads(done.stdout)
    assert (workers, threads, len(results)) == (4, 1, 24)
    loaded = {int(path.name): path.read_text() for path in tmp_path.iterdir()}
    assert sorted(loaded.values()) == ["0", "0", "1", "1"]
    for pid, visible, ids in results:
        assert loaded[pid] == visible == str(ids[0])


NODES = """
import json, os, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from barycenter.infra.ray.connection import connect
from barycenter.infra.dispatch.api import Work, dispatch

class Slow:
    def run(self, payload):
        time.sleep(0.3)
        return ray.get_runtime_context().get_node_id()

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
done, where = [], []
def on_done(work, node):
    done.append(work.payload)
    where.append(node)
    if second.node_id in where and second in nodes.worker_nodes:
        nodes.remove_node(second, allow_graceful=False)
with connect(nodes.address) as cluster:
    workers = cluster.machines().allocate_workers(threads=1)
    executor = cluster.executor(Slow, (), workers, "nodes")
    quarantined = dispatch([Work(str(n), n, 1) for n in range(20)], executor, on_done=on_done)
    print(json.dumps([workers.workers, sorted(done), len(set(where)), len(quarantined)]))
nodes.shutdown()
"""


@pytest.mark.slow
def test_a_lost_node_loses_no_work():
    done = subprocess.run([sys.executable, "-c", NODES], capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2, list(range(20)), 2, 0]
