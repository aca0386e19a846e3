"""A server is asked as Prefect's client would: behind authentication, TLS, a proxy; with headers of one's own."""

import datetime
import ipaddress
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName, LogFilter, LogFilterFlowRunId
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_TLS_INSECURE_SKIP_VERIFY,
    PREFECT_API_URL,
    PREFECT_CLIENT_CUSTOM_HEADERS,
    temporary_settings,
)

from barycenter.flows import environment
from barycenter.flows.attended import AttendedRun
from barycenter.flows.health import answers, check_server
from barycenter.flows.stages import embed
from barycenter.flows.temporary_server import TemporaryServer
from barycenter.fusion.errors import RunError
from barycenter.infra.job.models import Job
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines

SECRET = "admin:a secret"


@pytest.fixture(scope="module")
def guarded(prefect_home):
    """The address of a server that wants basic authentication."""
    server = TemporaryServer(prefect_home, 120, {"PREFECT_SERVER_API_AUTH_STRING": SECRET})
    server.wait()
    yield server.api
    server.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate of 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    kind = serialization.Encoding.PEM
    private = key.private_bytes(kind, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(kind) + private)
    return path


@pytest.fixture(scope="module")
def encrypted(guarded, certificate):
    """The same server behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=(listening, context, urlsplit(guarded).port), daemon=True).start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}/api"


def accept(listening, context, port):
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=serve, args=(client, context, port), daemon=True).start()


def serve(client, context, port):
    with (
        suppress(OSError),
        context.wrap_socket(client, server_side=True) as near,
        socket.create_connection(("127.0.0.1", port)) as far,
    ):
        back = threading.Thread(target=copy, args=(far, near), daemon=True)
        back.start()
        copy(near, far)
        back.join()


def copy(source, target):
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.slow
def test_one_that_wants_authentication_says_which_setting(guarded):
    assert answers(guarded, 30), "its health check lets everyone in"
    with pytest.raises(RunError, match=r"refuses this client \(401\); set PREFECT_API_AUTH_STRING"):
        check_server(guarded, 30)
    with temporary_settings({PREFECT_API_AUTH_STRING: SECRET}):
        check_server(guarded, 30)


@pytest.mark.slow
def test_one_behind_tls_is_believed_by_the_certificate_that_the_settings_name(encrypted, certificate):
    with temporary_settings({PREFECT_API_AUTH_STRING: SECRET}):
        assert not answers(encrypted, 30)
        with pytest.raises(RunError, match=r"CERTIFICATE_VERIFY_FAILED.*; set PREFECT_API_SSL_CERT_FILE"):
            check_server(encrypted, 30)
        for trust in ({PREFECT_API_SSL_CERT_FILE: str(certificate)}, {PREFECT_API_TLS_INSECURE_SKIP_VERIFY: True}):
            with temporary_settings(trust):
                assert answers(encrypted, 30)
                check_server(encrypted, 30)


def run_to_its_end(tmp_path, name):
    """Runs a stage, and looks at its page on the server of the settings."""
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(20))
    job = text_and_vector_job(corpus, tmp_path / "out", name, ray={"address": "none"})
    AttendedRun().run(embed, Job.model_validate(job))
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[f"embed {name}"])))
        assert run.state.is_completed()
        lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
        assert any("embed vec: 20/20 rows" in line.message for line in lines)
        assert f"{name}-progress" in {artifact.key for artifact in client.read_artifacts()}


@pytest.mark.slow
def test_a_run_reports_to_one_behind_both(encrypted, certificate, tmp_path):
    settings = {
        PREFECT_API_URL: encrypted,
        PREFECT_API_AUTH_STRING: SECRET,
        PREFECT_API_SSL_CERT_FILE: str(certificate),
    }
    with temporary_settings(settings):
        run_to_its_end(tmp_path, "guarded")


class Recorder(BaseHTTPRequestHandler):
    """Answers every request, and keeps what was asked for with which headers."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def recorder():
    with ExitStack() as stack:
        server = stack.enter_context(HTTPServer(("127.0.0.1", 0), Recorder))
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        yield server


def test_a_proxy_is_used_for_others_and_not_for_this_machine(recorder, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{recorder.server_port}")
    environment._reach_this_machine_directly()
    assert answers("http://prefect.example/api", 30)
    assert recorder.asked.pop()[0] == "http://prefect.example/api/health"
    assert answers(f"http://127.0.0.1:{recorder.server_port}/api", 30)
    assert recorder.asked.pop()[0] == "/api/health"


class Proxy(BaseHTTPRequestHandler):
    """Takes a request for whatever host to one server, and keeps for which."""

    def forward(self):
        self.server.asked.append(urlsplit(self.path).hostname)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)._replace(netloc=self.server.target).geturl()
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "accept-encoding")
        }
        answer = self.server.client.request(self.command, url, content=body, headers=headers)
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.end_headers()
        self.wfile.write(answer.content)

    def do_GET(self):
        self.forward()

    def do_POST(self):
        self.forward()

    def do_PATCH(self):
        self.forward()

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy(guarded):
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server,
    ):
        server.target, server.client, server.asked = urlsplit(guarded).netloc, client, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_run_reports_through_a_proxy_to_another_machine_and_past_it_to_this_one(
    guarded, proxy, tmp_path, monkeypatch, elsewhere
):
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port if elsewhere else 1}")
    environment._reach_this_machine_directly()
    api = "http://prefect.example/api" if elsewhere else guarded
    with temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: SECRET}):
        run_to_its_end(tmp_path, "far" if elsewhere else "near")
    assert set(proxy.asked) == ({"prefect.example"} if elsewhere else set())


def test_headers_of_ones_own_are_sent(recorder):
    with temporary_settings({PREFECT_CLIENT_CUSTOM_HEADERS: {"X-Gate": "open"}}):
        assert answers(f"http://127.0.0.1:{recorder.server_port}/api", 30)
    assert recorder.asked.pop()[1]["X-Gate"] == "open"
