import io
import json
import os
import subprocess
import sys

import pytest
import ray

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.ray import connection as cluster
from barycenter.infra.ray.connection import connect, in_submitted_job


@pytest.mark.parametrize("address", ["nonsense", "host:", ":", "ray://head:10001", "host:port"])
def test_a_wrong_address_names_the_key(address):
    with pytest.raises(JobError, match=r"^ray\.address: "), connect(address):
        pass


def test_a_cluster_that_is_not_there_is_one_line():
    with pytest.raises(RunError, match=r"no Ray cluster answers at 127\.0\.0\.1:9"), connect("127.0.0.1:9"):
        pass


def submitted(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {}}))


def test_auto_and_submitted_jobs_never_start_a_ray_of_their_own(monkeypatch):
    asked = []

    def no_cluster(**options):
        asked.append(options["address"])
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", no_cluster)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    with (
        pytest.raises(RunError, match="cluster auto: no Ray runs on this machine"),
        connect("auto"),
    ):
        pass
    submitted(monkeypatch)
    assert in_submitted_job()
    with pytest.raises(RunError, match="cannot join the Ray cluster auto"), connect("local"):
        pass
    assert asked == ["auto", "auto"]


def test_a_running_ray_is_used_and_left_running(ray_session):
    with connect("local") as here:
        assert here.machines().cpus == 2
        assert here.machines().gpus == 0
    assert ray.is_initialized()


def test_one_process_keeps_to_one_cluster(ray_session, monkeypatch):
    monkeypatch.setattr(cluster.socket, "create_connection", lambda *a, **k: io.BytesIO())
    with pytest.raises(RunError, match="connected to Ray at"), connect("192.0.2.77:6379"):
        pass


def test_another_process_joins_by_address(ray_session):
    script = """
import sys, ray
from barycenter.infra.ray.connection import connect
with connect(sys.argv[1]) as cluster:
    print(cluster.machines().cpus)
print(ray.is_initialized())
"""
    address = ray.get_runtime_context().gcs_address
    done = subprocess.run([sys.executable, "-c", script, address], capture_output=True, text=True, timeout=800)
    assert done.stdout.split() == ["2.0", "False"], done.stderr
    assert ray.cluster_resources()["CPU"] == 2


def test_rays_folder_is_short_where_tmpdir_is_long(monkeypatch, tmp_path):
    long = tmp_path / ("slurm_jobdir_of_a_user_with_a_long_name" * 2)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    cluster._choose_ray_folder()
    assert os.environ["RAY_TMPDIR"] in ("/tmp", "/var/tmp", "/dev/shm")
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(RunError, match=r"RAY_TMPDIR \(.*\) is too long for Ray's sockets; set RAY_TMPDIR to"):
        cluster._choose_ray_folder()


def test_a_folder_that_ray_cannot_write_to_is_reported(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/t")
    monkeypatch.setattr(cluster, "_SHORT_FOLDERS", ("/t",))
    with pytest.raises(RunError, match=r"TMPDIR \(/t\) is no folder that may be written to; set RAY_TMPDIR"):
        cluster._choose_ray_folder()


def test_rays_own_folder_is_left_where_it_fits(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    cluster._choose_ray_folder()
    assert "RAY_TMPDIR" not in os.environ


def test_ray_that_does_not_start_says_where_its_logs_are_and_what_to_do(monkeypatch):
    def busy(**_):
        raise TimeoutError("The raylet did not come up in time.")

    monkeypatch.setattr(ray, "init", busy)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # the session's is connected
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    message = r"did not come up in time.*session_latest/logs; run again .*RAY_TMPDIR"
    with pytest.raises(RunError, match=message), connect("local"):
        pass
