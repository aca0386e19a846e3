"""Which Prefect server a run from the command line goes to."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from barycenter.flows import server as flow_server
from barycenter.flows.cli import app
from barycenter.flows.health import answers
from barycenter.flows.server import PrefectServer
from barycenter.fusion.errors import RunError
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines


@pytest.fixture
def health_server():
    """Something that answers like Prefect's health check, with a status of choice."""

    class Health(BaseHTTPRequestHandler):
        status = 200
        delay = 0.0
        closed = False
        """Whether it wants authentication, but for its health check."""

        def do_GET(self):
            time.sleep(self.delay)
            refused = self.closed and self.path != "/api/health"
            known = self.path in ("/api/health", "/api/hello")
            self.send_response(401 if refused else self.status if known else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    http = HTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/api", Health
    http.shutdown()
    http.server_close()


@pytest.fixture
def nowhere(health_server):
    """An address where nobody answers."""
    return "http://127.0.0.1:1/api"


def test_a_server_answers_or_not(health_server, nowhere):
    address, health = health_server
    assert answers(address)
    assert answers(address + "/")
    health.status = 401
    assert answers(address)
    health.status = 500
    assert not answers(address)
    assert not answers(nowhere)
    assert not answers("no address")


def test_a_busy_server_that_was_asked_for_is_waited_for(health_server):
    address, health = health_server
    health.delay = 1.5
    assert not answers(address, 0.2)
    with temporary_settings({PREFECT_API_URL: address}), PrefectServer() as server:
        server.check()
        server.wait()


def test_one_that_answers_on_this_machine_is_taken(health_server, nowhere, monkeypatch):
    address, _ = health_server
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        monkeypatch.setattr(flow_server, "LOCAL_API", address)
        with PrefectServer() as server:
            server.check()
            server.wait()
            assert PREFECT_API_URL.value() == address
        assert PREFECT_API_URL.value() is None


def test_one_on_this_machine_that_refuses_us_is_an_error(health_server, monkeypatch):
    address, health = health_server
    health.closed = True
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        monkeypatch.setattr(flow_server, "LOCAL_API", address)
        with (
            PrefectServer() as server,
            pytest.raises(RunError, match=r"refuses this client \(401\); set PREFECT_API_AUTH_STRING"),
        ):
            server.check()


def test_one_that_was_asked_for_and_does_not_answer_is_an_error(nowhere, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda *args, **kwargs: pytest.fail("Ray was started"))
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(20))
    job = write_job(tmp_path / "job.yaml", text_and_vector_job(corpus, tmp_path / "out", "lost"))
    with temporary_settings({PREFECT_API_URL: nowhere}):
        result = CliRunner().invoke(app, ["run", str(job)])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"barycenter: no Prefect server answers at {nowhere} (")
    assert line.endswith("Connection refused); start it (`prefect server start`) or unset PREFECT_API_URL")
    assert result.stdout == ""
