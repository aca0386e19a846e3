"""The automations of infra/deploy, made on a real server and set off by what runs emit."""

import json
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.events import Event
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.automations import AutomationCore
from prefect.flow_engine import run_flow
from prefect.states import Running

from barycenter.flows.pipeline import pipeline
from barycenter.flows.stages import embed
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.job.models import Job
from barycenter.tasks.observability import events
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines
from tests.infra.dispatch.test_api import wait_until

DEPLOY = Path(__file__).resolve().parents[2] / "infra" / "deploy"


@pytest.fixture(scope="module")
def automations():
    """What the file has, by name."""
    content = yaml.safe_load((DEPLOY / "automations.yaml").read_text())["automations"]
    return {each["name"]: each for each in content}


@contextmanager
def made_on_server():
    """Makes an automation of the file's, enabled, with ids of this server; takes them away at the end."""
    with get_client(sync_client=True) as client, ExitStack() as stack:

        def make(content, action=None, **trigger):
            content = content | {"enabled": True, "trigger": content["trigger"] | trigger}
            content["actions"] = [content["actions"][0] | (action or {})]
            number = client.create_automation(AutomationCore.model_validate(content))
            stack.callback(client.delete_automation, number)
            return number

        yield make


@pytest.fixture
def made(prefect_server):
    with made_on_server() as make:
        yield make


@pytest.fixture(scope="module", autouse=True)
def silent_run(prefect_server, automations):
    """A run of ours that sends a heartbeat before all tests and is silent then, and a way to send another.

    Its automation waits for 10 seconds, Prefect's least, instead of 200.
    """
    with made_on_server() as make, get_client(sync_client=True) as client:
        run = client.create_flow_run(embed, state=Running())
        resource = {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name}
        make(
            automations["barycenter zombies"],
            within=10,
            match={"prefect.resource.id": [resource["prefect.resource.id"]]},
        )
        flow = {"prefect.resource.id": f"prefect.flow.{run.flow_id}", "prefect.resource.name": embed.name}
        flow |= {"prefect.resource.role": "flow"}

        def beat():
            event = Event(event="prefect.flow-run.heartbeat", resource=resource, related=[flow])
            client.request("POST", "/events", json=[event.model_dump(mode="json")])

        time.sleep(5)  # a server that has just started answers before it takes in events: one of now would be lost
        beat()
        yield run, beat


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr("barycenter.tasks.report.rendering.figures.plots", lambda *_: {})
    rows = text_and_vector_rows(40)
    for row in rows[:10]:
        row["text"] = None
    corpus = write_lines(tmp_path / "rows.jsonl", rows)
    return text_and_vector_job(corpus, tmp_path / "out", tmp_path.name, ray={"address": "none"})


def emitted(resource, *last):
    """The events about a resource, oldest first, once one of each of these names is there."""
    with get_client(sync_client=True) as client:

        def found():
            about = EventResourceFilter(id=[resource])
            named = EventNameFilter(prefix=["barycenter."])
            return client.read_events(EventFilter(event=named, resource=about), 50).events[::-1]

        assert wait_until(lambda: set(last) <= {event.event for event in found()}), found()
        return sorted(found(), key=lambda event: event.occurred)


def test_the_file_can_be_created_as_it_is(automations):
    enabled = {name for name, content in automations.items() if AutomationCore.model_validate(content).enabled}
    assert enabled == {"barycenter zombies"}, "the others want ids"


def test_a_run_emits_what_it_does(prefect_server, job, tmp_path):
    out = str(tmp_path / "out")
    report = pipeline(Job.model_validate(job))
    pipeline(Job.model_validate(job))
    strict = Job.model_validate(job | {"limits": {"max_bad_fraction": 0.1}, "output": {"path": out + "-2"}})
    with pytest.raises(RunError):
        embed(strict)

    seen = emitted(out, events.COMMITTED, events.NOTHING_NEW)
    stages = [events.STAGE_DONE] * 3
    assert (
        [event.event for event in seen]
        == [
            *(events.STARTED, *stages, events.COMMITTED, *stages[:2]),  # committed while fusing
            *(events.STARTED, *stages, *stages[:2], events.NOTHING_NEW),
        ]
    )
    assert seen[0].payload["rows"] == 40
    done = [event.payload["stage"] for event in seen if event.event == events.STAGE_DONE]
    assert done == 2 * ["embed text", "embed vec", "align", "fuse", "report"]
    committed = seen[4]
    assert committed.payload["rows"]["written"] == 40
    assert (committed.payload["version"], committed.payload["number"]) == (report["version"], 1)
    assert {"corpus", "encoder", "flow", "flow-run"} <= {resource.role for resource in committed.related}
    assert seen[-1].payload == {"version": report["version"], "number": 1}

    started, failed, too_many = emitted(out + "-2", events.FAILED, events.TOO_MANY_BAD)
    assert (started.event, failed.event, too_many.event) == (events.STARTED, events.FAILED, events.TOO_MANY_BAD)
    assert failed.payload["kind"] == "bad_inputs"
    assert "10 of 40 rows (25%) cannot be used" in too_many.payload["reason"]


@pytest.fixture
def webhook():
    """An address that keeps what is sent to it."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        server.got = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_failure_is_sent_to_people(automations, made, webhook, tmp_path):
    block = CustomWebhookNotificationBlock(
        name="people",
        url=f"http://127.0.0.1:{webhook.server_port}/",
        json_data={"subject": "{{subject}}", "body": "{{body}}"},
    )
    number = block.save(f"people-{tmp_path.name.replace('_', '-')}")
    path = write_job(tmp_path / "job.yaml", {"name": "wrong", "inputs": {}})
    content = automations["barycenter says what failed"]
    made(content, {"block_document_id": str(number)}, match={"prefect.resource.id": f"barycenter.job.{path}"})
    with pytest.raises(JobError, match="corpus") as caught:
        pipeline(str(path))
    assert wait_until(lambda: webhook.got)
    assert webhook.got == [{"subject": f"barycenter.run.failed: {path}", "body": str(caught.value)}]


@pytest.fixture
def deployment(prefect_server, tmp_path):
    """A deployment of the embed stage, and a way to run it in this process."""
    with get_client(sync_client=True) as client:
        number = client.create_deployment(client.create_flow(embed), tmp_path.name, enforce_parameter_schema=False)

        def run(job):
            flow_run = client.create_flow_run_from_deployment(number, parameters={"job": str(job)})
            run_flow(embed, flow_run=flow_run)

        yield number, run


def test_a_new_version_starts_a_training(automations, made, deployment, job, tmp_path):
    number, _ = deployment
    out = str(tmp_path / "out")
    content = automations["barycenter trains on every new version"]
    made(content, {"deployment_id": str(number)}, match={"prefect.resource.id": str(tmp_path / "*")})
    pipeline(Job.model_validate(job))
    with get_client(sync_client=True) as client:
        only = DeploymentFilter(id=DeploymentFilterId(any_=[number]))
        assert wait_until(lambda: client.read_flow_runs(deployment_filter=only))
        (started,) = client.read_flow_runs(deployment_filter=only)
    assert started.parameters == {"dataset": out}


def test_two_failures_pause_the_schedule(automations, made, deployment, tmp_path):
    number, run = deployment
    made(automations["barycenter pauses a schedule after two failures"])
    path = write_job(tmp_path / "job.yaml", {"name": "wrong", "inputs": {}})
    with get_client(sync_client=True) as client:
        for _ in range(2):
            assert not client.read_deployment(number).paused
            with pytest.raises(JobError, match="corpus"):
                run(path)
        assert wait_until(lambda: client.read_deployment(number).paused)


def test_a_run_that_is_silent_is_marked_as_crashed(silent_run):
    run, beat = silent_run
    with get_client(sync_client=True) as client:

        def state():
            return client.read_flow_run(run.id).state

        for _ in range(9):  # where the first was lost all the same, the next counts, as it does of a run
            if wait_until(lambda: state().is_crashed(), 30):
                break
            beat()
        assert state().message == "No heartbeat for 200 seconds; its process is gone."
