"""Pictures by http from servers that answer, refuse, hang, break off or are not there."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from barycenter.fusion.errors import BadInputError, Reason, RunError
from barycenter.infra.clock import current_clock, use_clock
from barycenter.infra.corpus import Pictures
from barycenter.infra.corpus.pictures import http as fetching
from barycenter.infra.corpus.pictures.http import NO_ANSWER, Hosts, check_network
from tests.infra.simulation import SimulatedClock


class Server(ThreadingHTTPServer):
    """Answers ``/CODE`` with the code, ``/flaky`` with 503 until it was asked twice, ``/cut`` and ``/hang`` badly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.strip("/")
        self.server.asked.append(name)
        if name == "hang":
            self.server.released.wait(20)
            return
        code = int(name) if name.isdigit() else 200
        self.send_response(503 if name == "flaky" and self.server.asked.count(name) < 3 else code)
        self.send_header("Content-Length", "90" if name == "cut" else "10")
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def clock() -> Iterator[SimulatedClock]:
    simulated = SimulatedClock()
    with use_clock(simulated):
        yield simulated


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, clock: SimulatedClock) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "HOSTS", Hosts())
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.released.set()
    running.shutdown()
    thread.join()
    running.server_close()


def refused(url: str, **options: float) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        Pictures("/tmp", http=True, **options).find(url).read()  # type: ignore[arg-type]
    return caught.value


def test_answers(server: Server, clock: SimulatedClock) -> None:
    assert Pictures("/tmp", http=True).find(f"{server.url}/200").read() == b"0123456789"
    assert refused(f"{server.url}/200", max_bytes=9).reason == Reason.TOO_LARGE
    gone = refused(f"{server.url}/404")
    assert gone.reason == Reason.HTTP_ERROR
    assert not gone.detail.startswith(NO_ANSWER)
    assert server.asked.count("404") == 1
    assert fetching.HOSTS.last_answer == clock.now


def test_a_busy_server_is_asked_again_after_waiting(server: Server, clock: SimulatedClock) -> None:
    assert Pictures("/tmp", http=True).find(f"{server.url}/flaky").read() == b"0123456789"
    assert server.asked == ["flaky"] * 3
    assert clock.now == sum(fetching._WAIT_SECONDS)


@pytest.mark.parametrize(("name", "words"), [("503", "503"), ("429", "429"), ("cut", "IncompleteRead")])
def test_a_server_that_stays_busy_rejects_the_row(server: Server, name: str, words: str) -> None:
    error = refused(f"{server.url}/{name}")
    assert error.reason == Reason.HTTP_ERROR
    assert error.detail.startswith(NO_ANSWER)
    assert words in error.detail
    assert "--retry-bad" in error.detail
    assert len(server.asked) == fetching.TRIES


def test_one_that_hangs_rejects_the_row(server: Server) -> None:
    error = refused(f"{server.url}/hang", http_timeout=0.2)
    assert error.reason == Reason.HTTP_ERROR
    assert "limits.http_timeout" in error.detail


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.usefixtures("server")
def test_one_that_is_not_there_rejects_the_row() -> None:
    error = refused(f"http://127.0.0.1:{free_port()}/a.png")
    assert error.reason == Reason.HTTP_ERROR
    assert error.detail.startswith(NO_ANSWER)
    assert "refused" in error.detail


@pytest.mark.usefixtures("server")
def test_names_that_cannot_be_found_reject_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "no such host" in refused("http://pictures.invalid/a.png").detail


@pytest.mark.parametrize("url", ["http://[::1/a.png", "http://127.0.0.1:port/a.png", "http://127.0.0.1/a b\n.png"])
def test_what_is_no_url_rejects_the_row(server: Server, url: str) -> None:
    assert refused(url).reason == Reason.HTTP_ERROR


def test_a_server_without_certificate_rejects_the_row(server: Server) -> None:
    assert refused(server.url.replace("http", "https") + "/200").reason == Reason.HTTP_ERROR


def test_a_silent_host_is_left_alone_and_others_are_not(server: Server, clock: SimulatedClock) -> None:
    for _ in range(fetching._MAX_FAILURES):
        refused(f"{server.url}/503")
    asked = len(server.asked)
    assert "it is paused" in refused(f"{server.url}/200").detail
    assert len(server.asked) == asked
    other = server.url.replace("127.0.0.1", "localhost")
    assert Pictures("/tmp", http=True).find(f"{other}/200").read() == b"0123456789"
    clock.sleep(fetching._PAUSE_SECONDS + 1)
    assert Pictures("/tmp", http=True).find(f"{server.url}/200").read() == b"0123456789"


def silent(*hosts: str) -> list[str]:
    return [f"{NO_ANSWER}{host}: refused" for host in hosts]


class TestTheNetworkIsDown:
    """Where a shard stops the run, and where its rows are rejected."""

    @pytest.fixture(autouse=True)
    def hosts(self, monkeypatch: pytest.MonkeyPatch) -> Hosts:
        hosts = Hosts()
        monkeypatch.setattr(fetching, "HOSTS", hosts)
        return hosts

    def test_no_picture_of_the_first_shard_is_answered(self) -> None:
        with pytest.raises(
            RunError, match=r"a.csv: none of 20 pictures could be fetched \(no answer from a:1: refused"
        ):
            check_network("a.csv", silent(*["a:1"] * 20), 20, current_clock().monotonic())

    def test_nor_any_of_several_hosts_later_on(self, hosts: Hosts) -> None:
        hosts.record_answer("c")
        begun = current_clock().monotonic() + 1
        with pytest.raises(RunError, match="run the job again"):
            check_network("a.csv", silent(*"ab" * 10), 20, begun)
        check_network("a.csv", silent(*"a" * 20), 20, begun)

    def test_some_pictures_are_elsewhere(self) -> None:
        check_network("a.csv", silent(*"a" * 19), 20, current_clock().monotonic())
        check_network("a.csv", [*silent(*"a" * 19), "b: 404 Not Found"], 20, current_clock().monotonic())

    def test_few_pictures(self) -> None:
        check_network("a.csv", silent(*"a" * 7), 7, current_clock().monotonic())

    def test_another_shard_is_answered_meanwhile(self, hosts: Hosts) -> None:
        begun = current_clock().monotonic()
        hosts.record_answer("c")
        check_network("a.csv", silent(*"ab" * 10), 20, begun)
