"""The deployments as Prefect's server sees them, and what the nightly one does on a corpus that grows."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.events.schemas.automations import AutomationCore
from prefect.events.utilities import emit_event
from prefect.settings import PREFECT_API_URL
from prefect.settings.models.flows import FlowsSettings

from barycenter.flows.pipeline import pipeline
from barycenter.fusion.dataset import FusedDataset
from barycenter.infra.storage import Storage
from barycenter.infra.versions.manifests import versions
from barycenter.tasks.observability import events
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, undescribed, write_job, write_lines

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "infra" / "deploy"


@pytest.mark.usefixtures("prefect_server")
def test_all_deploy_from_the_root_and_fit_their_flows(tmp_path):
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_HOME": str(tmp_path)}
    prefect = [sys.executable, "-m", "prefect"]
    pool = ["work-pool", "create", "default", "--type", "process"]
    deploy = ["--no-prompt", "deploy", "--all", "--prefect-file", "infra/deploy/prefect.yaml"]
    for words in (pool, deploy):
        command = [*prefect, *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    asked = {each["name"]: each for each in yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]}
    with get_client(sync_client=True) as client:
        there = {each.name: each for each in client.read_deployments()}
    assert set(asked) <= set(there)
    for name in asked:
        deployment = there[name]
        assert deployment.work_pool_name == "default"
        assert deployment.parameters["job"] == "demo"
        assert deployment.pull_steps[0]["prefect.deployments.steps.set_working_directory"]["directory"] == str(ROOT)
        assert "barycenter" in deployment.tags
        assert deployment.global_concurrency_limit is None, "output.busy decides"
        assert "job" in deployment.parameter_openapi_schema["properties"]
        assert undescribed(deployment.parameter_openapi_schema) == []
    nightly = there["nightly"]
    (schedule,) = nightly.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 3 * * *", "Europe/Berlin")


def test_the_zombie_automation_outlasts_every_heartbeat():
    content, *_ = yaml.safe_load((DEPLOY / "automations.yaml").read_text())["automations"]
    assert content["name"] == "barycenter zombies"
    automation = AutomationCore.model_validate(content)
    assert automation.trigger.posture == "Proactive"
    assert automation.trigger.within.total_seconds() > FlowsSettings().heartbeat_frequency
    (action,) = automation.actions
    assert action.state == "CRASHED"


@pytest.mark.usefixtures("prefect_server")
def test_a_night_embeds_what_is_new_and_the_old_version_stays_readable(tmp_path, monkeypatch):
    emitted = []

    def emit(*args, **kwargs):
        emitted.append((args, kwargs))
        return emit_event(*args, **kwargs)

    monkeypatch.setattr(events, "emit_event", emit)
    folder = tmp_path / "corpus"
    write_lines(folder / "monday.jsonl", text_and_vector_rows(60))
    data = text_and_vector_job(folder, tmp_path / "out", "nightly", ray={"address": "none"})
    job = str(write_job(tmp_path / "job.yaml", data))
    first = pipeline(job)
    reader = FusedDataset(str(tmp_path / "out"), batch_size=16)
    batches = iter(reader)
    keys = list(next(batches)["key"])

    rows = text_and_vector_rows(40, first=60)
    rows[0]["text"] = rows[1]["text"] = None
    write_lines(folder / "tuesday.jsonl", rows)
    second = pipeline(job)
    assert second["speed"]["embed text"]["rows"] == second["speed"]["embed vec"]["rows"] == 40
    assert second["version"] != first["version"]
    assert versions(Storage(str(tmp_path / "out"))) == [1, 2]

    keys += [key for batch in batches for key in batch["key"]]
    assert keys == [f"r{number:04d}" for number in range(60)]
    fresh = FusedDataset(str(tmp_path / "out"), batch_size=16)
    assert sum(len(batch["key"]) for batch in fresh) == 100

    committed = [kwargs for args, kwargs in emitted if args == (events.COMMITTED,)]
    assert [event["payload"]["number"] for event in committed] == [1, 2]
    assert {event["resource"]["prefect.resource.id"] for event in committed} == {str(tmp_path / "out")}
    shown = shown_artifacts({f"nightly-{name}" for name in ("progress", "report", "rejects", "lineage", "output")})
    assert shown["nightly-progress"] == 100.0
    assert "report.html" in shown["nightly-report"]
    assert '"reason": "null"' in shown["nightly-rejects"]
    assert '"rows": 2' in shown["nightly-rejects"]
    assert second["version"] in shown["nightly-lineage"]
    for part in (f"[{tmp_path}/out](file://{tmp_path}/out)", f"features/{second['version']}", "report.html"):
        assert part in shown["nightly-output"]


def shown_artifacts(keys):
    """Newest data of artifacts, by key."""
    end = time.monotonic() + 30
    while True:
        with get_client(sync_client=True) as client:
            found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=list(keys))))
        newest = {each.key: each.data for each in sorted(found, key=lambda each: each.created)}
        if set(newest) == keys or time.monotonic() > end:
            assert set(newest) == keys
            return newest
        time.sleep(0.5)
