"""What is kept for a server and when it is sent; the server is a fake whose answers are held back or refused."""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest

from barycenter.tasks.observability import outbox as module
from barycenter.tasks.observability.outbox import Outbox


class Server:
    """Takes what it is sent, unless it is away; ``hold`` keeps it from answering."""

    def __init__(self):
        self.got, self.lines, self.away, self.tried = [], [], False, 0
        self.answers = threading.Event()
        self.answers.set()
        self.called = threading.Semaphore(0)

    def take(self, what, into=None):
        self.tried += 1
        self.called.release()
        self.answers.wait(60)
        if self.away:
            raise httpx.ConnectError("refused")
        (self.got if into is None else into).append(what)

    def create_logs(self, lines):
        self.take([line["message"] for line in lines], self.lines)

    def request(self, method, path, json):
        self.take((method, path, json))


@pytest.fixture
def server(monkeypatch):
    server = Server()

    @contextmanager
    def client(**_):
        yield server

    monkeypatch.setattr(module, "get_client", client)
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.01)
    yield server
    server.answers.set()


@pytest.fixture
def said():
    return []


@pytest.fixture
def box(server, said):
    box = Outbox(said.append)
    yield box
    server.answers.set()
    server.away = False
    box.close(60)
    assert not box._thread.is_alive()


def line(message):
    return {"message": message, "__payload_size__": len(message)}


def test_all_is_sent_and_no_caller_waits_for_an_answer(server, box, said):
    server.answers.clear()
    box.show("first", lambda client: client.take("first"))
    assert server.called.acquire(timeout=60)  # it is under way, and not answered
    for number in range(3):
        box.show("bar", lambda client, number=number: client.take(f"bar {number}"))
        box.add_line(line(f"line {number}"))
        box.add_event(SimpleNamespace(size_bytes=1, model_dump=lambda number=number, **_: number))
    assert server.got == []
    server.answers.set()
    assert box.settle(60)
    assert server.got == ["first", "bar 2", ("POST", "/events", [0, 1, 2])], "of one bar only the last waits"
    assert server.lines == [["line 0", "line 1", "line 2"]]
    assert said == []


def test_a_server_that_is_away_is_one_line_and_gets_all_when_it_is_back(server, box, said):
    server.away = True
    box.add_line(line("while it was away"))
    assert not box.settle(60)
    assert box.silent
    box.show("bar", lambda client: client.take("bar"))
    assert not box.settle(60)
    server.away = False
    assert box.settle(60)
    assert not box.silent
    assert (server.got, server.lines) == (["bar"], [["while it was away"]])
    server.away = True
    box.add_line(line("again"))
    assert not box.settle(60)
    assert len(said) == 1
    assert said[0].startswith("the Prefect server does not answer")


def test_one_that_never_answers_is_waited_for_no_longer_than_asked(server, box, said):
    server.answers.clear()
    box.add_line(line("lost"))
    assert server.called.acquire(timeout=60)
    assert not box.settle(0.01)
    assert box.silent
    assert len(said) == 1


def test_the_oldest_lines_make_room_for_new_ones(server, box, monkeypatch):
    server.answers.clear()
    box.add_line(line("under way"))
    assert server.called.acquire(timeout=60)
    most = box._lines.maxlen
    for number in range(most + 10):
        box.add_line(line(str(number)))
    assert len(box._lines) == most
    server.away = True
    server.answers.set()
    assert not box.settle(60)
    server.away = False
    assert box.settle(60)
    kept = [each for lines in server.lines for each in lines]
    assert kept == [str(number) for number in range(10, most + 10)]
    assert max(map(len, server.lines)) <= 200


def test_what_is_refused_is_said_once_and_holds_nothing_back(server, box, said):
    def refuse(_):
        server.called.release()
        raise ValueError("no such key")

    for _ in range(2):
        box.show("the artifact x", refuse)
        assert server.called.acquire(timeout=60)
    box.show("bar", lambda client: client.take("bar"))
    assert box.settle(60)
    assert server.got == ["bar"]
    assert said == ["Prefect did not take the artifact x: no such key"]
    assert not box.silent


@pytest.mark.parametrize(("failures", "taken"), [(2, True), (3, False)])
def test_a_busy_server_is_asked_three_times(server, box, said, failures, taken):
    left = [failures]

    def busy(client):
        if left[0]:
            left[0] -= 1
            response = httpx.Response(503, request=httpx.Request("POST", "http://server"))
            raise module.PrefectHTTPStatusError("busy", request=response.request, response=response)
        client.take("taken")

    box.show("bar", busy)
    assert box.settle(60)
    assert server.got == (["taken"] if taken else [])
    assert [line.startswith("Prefect did not take bar: ") for line in said] == ([] if taken else [True])


def refusing(*messages):
    """Refuses every batch in which one of these lines is, as a server does of a line that is too large."""

    def create_logs(self, lines):
        if any(line["message"] in messages for line in lines):
            self.tried += 1
            raise ValueError("too large")
        self.take([line["message"] for line in lines], self.lines)

    return create_logs


def test_of_lines_of_which_some_are_refused_the_others_arrive_in_their_order(server, box, said, monkeypatch):
    monkeypatch.setattr(Server, "create_logs", refusing("7", "8", "91"))
    server.answers.clear()
    box.show("first", lambda client: client.take("first"))
    assert server.called.acquire(timeout=60)
    for number in range(100):
        box.add_line(line(str(number)))
    server.answers.set()
    assert box.settle(60)
    arrived = [each for lines in server.lines for each in lines]
    assert arrived == [str(number) for number in range(100) if number not in (7, 8, 91)]
    assert said == ["Prefect did not take some log lines: too large"]
    assert server.tried < 60


def test_where_every_line_is_refused_few_are_tried(server, box, said, monkeypatch):
    monkeypatch.setattr(Server, "create_logs", refusing(*map(str, range(1000))))
    server.answers.clear()
    box.show("first", lambda client: client.take("first"))
    assert server.called.acquire(timeout=60)
    for number in range(1000):
        box.add_line(line(str(number)))
    server.answers.set()
    assert box.settle(60)
    assert server.lines == []
    assert len(said) == 1
    assert server.tried < 40
