import urllib.request

import ray

from barycenter.infra.logs import bound
from barycenter.infra.ray.metrics import StageMetrics
from tests.infra.dispatch.test_api import wait_until


def exported() -> str:
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as response:
        return response.read().decode()


def test_prometheus_sees_rows_seconds_and_gpus(ray_session):
    with bound(run="metrics of a test"):
        stage = StageMetrics("embed text")
    stage.advance(30, 70, {"model": 1.5, "read": 0.0})
    stage.advance(20, 50, {"model": 0.5})
    stage.lost("node")
    stage.lost("node")
    stage.bad({"not_an_image": 3})
    stage.reserved(4, 2.0, 4.0)
    assert wait_until(lambda: "barycenter_gpu_share" in exported())
    lines = [line for line in exported().splitlines() if "metrics of a test" in line]
    values = {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
    found = {name.removeprefix("ray_").removesuffix("_total"): value for name, value in values.items()}
    assert found["barycenter_rows"] == 50
    assert found["barycenter_rows_left"] == 50
    assert found["barycenter_seconds"] == 2.0
    assert found["barycenter_workers"] == 4
    assert found["barycenter_workers_lost"] == 2
    assert found["barycenter_bad_inputs"] == 3
    assert found["barycenter_gpu_share"] == 0.5
