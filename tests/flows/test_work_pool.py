"""A process worker at a work pool: it runs what a schedule fires, and cancels what is to stop."""

import asyncio
import os
import sys
import threading
from contextvars import copy_context
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import boto3
import pytest
from prefect.blocks.system import Secret
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.server.services.scheduler import schedule_deployments
from prefect.states import Cancelling, Scheduled
from prefect.variables import Variable
from prefect.workers.process import ProcessWorker

from barycenter.infra.storage import Storage
from barycenter.infra.versions.lease import hold
from barycenter.infra.versions.manifests import versions
from tests.flows.deploying import deploy, deployment
from tests.infra.dispatch.test_api import wait_until

pytestmark = pytest.mark.usefixtures("prefect_server")


def state_of(client, run):
    return client.read_flow_run(run.id).state


@pytest.fixture
def bucket(s3_server, s3_bucket, monkeypatch):
    """A bucket whose address only a variable of Prefect knows, and whose keys only a block."""
    Variable.set("barycenter_test_s3", s3_server, overwrite=True)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    Secret(value={name: os.environ[name] for name in names}).save("barycenter-test-s3", overwrite=True)
    with monkeypatch.context() as context:
        for name in names:
            context.delenv(name)
        yield s3_bucket


@pytest.fixture
def night(folder, pool, bucket):
    """A deployment that runs every night at two, in Berlin; the name of its work pool."""
    machines = pool()
    env = {"AWS_ENDPOINT_URL": "{{ prefect.variables.barycenter_test_s3 }}"}
    folder.write(
        "night",
        output={"path": f"s3://{bucket}/out"},
        storage={"credentials_block": "secret/barycenter-test-s3"},
        deployment={
            "schedule": "0 2 * * *",
            "timezone": "Europe/Berlin",
            "work_pool": machines,
            "job_variables": {"env": env},
        },
    )
    deploy(folder)
    return machines


def planned(client, there):
    """The runs that the schedule of a deployment has made, the next one first, after a turn of the server's scheduler.

    A server for tests has all services but this one, so it runs here, on the server's database.
    """
    asyncio.run(schedule_deployments())
    runs = client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[there.id])))
    return sorted((run for run in runs if run.state.is_scheduled()), key=lambda run: run.next_scheduled_start_time)


def test_a_worker_runs_what_a_schedule_fires_and_cancels_a_run_that_waits_for_its_output(
    folder, pool, client, night, bucket, tmp_path, capfd
):
    there = deployment(client, folder.name("night"))
    assert planned(client, there)
    times = [run.next_scheduled_start_time.astimezone(ZoneInfo("Europe/Berlin")) for run in planned(client, there)]
    assert {(time.hour, time.minute) for time in times} == {(2, 0)}
    client.pause_deployment(there.id)
    assert planned(client, there) == []
    command = f"{sys.executable} -m prefect.engine"  # without the processes that Prefect starts to find it out
    folder.write("waits", deployment={"work_pool": night, "job_variables": {"command": command}})
    assert [line.split()[0] for line in deploy(folder)[0]] == ["unchanged", "created"]
    client.resume_deployment(there.id)
    done = planned(client, there)[0]
    client.set_flow_run_state(done.id, Scheduled(scheduled_time=datetime.now(UTC)), force=True)  # two o'clock
    waits = client.create_flow_run_from_deployment(deployment(client, folder.name("waits")).id)

    work = ProcessWorker(work_pool_name=night).start
    with hold(Storage(str(tmp_path / "out-waits")), "test"):
        worker = threading.Thread(target=copy_context().run, args=(asyncio.run, work(run_once=True)))
        worker.start()
        assert wait_until(lambda: state_of(client, waits).is_running())
        client.set_flow_run_state(waits.id, Cancelling())
        worker.join(300)
    assert not worker.is_alive()
    assert state_of(client, done).is_completed()
    assert state_of(client, waits).is_cancelled()
    assert client.read_flow_run(done.id).name == folder.name("night")
    listed = boto3.client(
        "s3", endpoint_url=Variable.get("barycenter_test_s3"), aws_access_key_id="a", aws_secret_access_key="b"
    )
    assert listed.list_objects_v2(Bucket=bucket, Prefix="out/manifests/1.json")["KeyCount"] == 1
    assert versions(Storage(str(tmp_path / "out-waits"))) == []
    printed = "".join(capfd.readouterr())
    assert printed.count("embed vec: 40/40 rows") == 1
