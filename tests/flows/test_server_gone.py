"""A Prefect server that stops, comes back or dies while a run works: the run goes on, and ends as it would."""

import signal
import time
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName, LogFilter, LogFilterFlowRunId
from prefect.events.clients import PrefectEventsClient
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from barycenter.flows import attended
from barycenter.flows.attended import AttendedRun
from barycenter.flows.pipeline import pipeline
from barycenter.flows.stages import embed
from barycenter.flows.temporary_server import TemporaryServer
from barycenter.fusion.errors import RunError
from barycenter.infra.job.models import Job
from barycenter.tasks.observability import outbox
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.observability.run_page import current_outbox
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines
from tests.infra.dispatch.test_api import wait_until

pytestmark = pytest.mark.slow

STOOD_STILL = 60.0
"""Seconds that a single stage stood still, and the end of the run besides, when work waited for the server."""


@pytest.fixture(scope="module")
def server(prefect_home):
    """A server of the tests' own; the last of them kills it."""
    server = TemporaryServer(prefect_home, 120, {})
    server.wait()
    with temporary_settings({PREFECT_API_URL: server.api}):
        yield server
    server.stop()


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr("barycenter.tasks.report.rendering.figures.plots", lambda *_: {})
    monkeypatch.setattr(outbox, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(outbox, "_AGAIN_SECONDS", 0.2)
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(100))
    return Job.model_validate(
        text_and_vector_job(corpus, tmp_path / "out", tmp_path.name, ray={"address": "none"}, train={"target": "label"})
    )


def when(stage, monkeypatch, act):
    """Does something as a stage begins."""
    enter = StageProgress.__enter__

    def entering(progress):
        if progress.stage == stage:
            act()
        return enter(progress)

    monkeypatch.setattr(StageProgress, "__enter__", entering)


def run_of(job):
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[f"embed {job.name}"]))
        )
        return run


def page_of(run):
    with get_client(sync_client=True) as client:
        return [line.message for line in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))]


def lines_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("barycenter:")]


def test_one_that_is_back_after_a_moment_has_the_whole_run(server, job, monkeypatch, capsys):
    def come_back():
        assert wait_until(lambda: current_outbox().silent)
        server._process.send_signal(signal.SIGCONT)
        assert wait_until(lambda: not current_outbox().silent)

    when("embed text", monkeypatch, lambda: server._process.send_signal(signal.SIGSTOP))
    when("embed vec", monkeypatch, come_back)
    AttendedRun().run(embed, job)
    run = run_of(job)
    assert run.state.is_completed()
    assert any("embed text: 100 rows to do" in line for line in page_of(run))
    assert len(lines_of(capsys)) == 1


def test_one_that_was_restarted_has_the_whole_run_too(server, job, monkeypatch, capsys):
    def end():
        server._process.kill()
        server._process.wait()

    def come_back():
        assert wait_until(lambda: current_outbox().silent)
        server._process = server._start()
        assert wait_until(lambda: not current_outbox().silent)

    when("embed text", monkeypatch, end)
    when("embed vec", monkeypatch, come_back)
    AttendedRun().run(embed, job)
    run = run_of(job)
    assert run.state.is_completed()
    assert any("embed text: 100 rows to do" in line for line in page_of(run))
    assert len(lines_of(capsys)) == 1


def test_a_run_that_fails_while_it_is_stopped_fails_as_it_would(server, job, monkeypatch, capsys):
    def stop():
        server._process.send_signal(signal.SIGSTOP)
        raise RunError("the disk is full; free some space")

    when("embed vec", monkeypatch, stop)
    monkeypatch.setattr(attended, "_LAST_WORDS_SECONDS", 1.0)
    try:
        with pytest.raises(RunError, match="the disk is full"):
            AttendedRun().run(embed, job)
    finally:
        server._process.send_signal(signal.SIGCONT)
    assert len(lines_of(capsys)) == 1


def test_a_whole_run_goes_on_when_it_is_killed(server, job, monkeypatch, capsys):
    def kill():
        server._process.kill()
        server._socket.close()  # with it open, the system would take connections that nobody answers

    when("embed vec", monkeypatch, kill)
    for worker in (
        APILogWorker,
        PrefectEventsClient,
    ):  # Prefect's own ways, which the end of the process would wait for
        monkeypatch.setattr(worker, "__init__", lambda *_, worker=worker: used.append(worker))
    used: list[type] = []
    began = time.monotonic()
    report = AttendedRun().run(pipeline, job)
    assert time.monotonic() - began < STOOD_STILL
    assert used == []
    assert report["rows"]["written"] == 100
    assert Path(job.output.path, "report", "report.html").exists()
    assert lines_of(capsys) == [
        "barycenter: the Prefect server does not answer; the run goes on, and its page as soon as the server does"
    ]
