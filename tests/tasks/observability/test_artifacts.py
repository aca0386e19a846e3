"""What is shown in Prefect while its server is away."""

import httpx
import pytest

from barycenter.infra.clock import use_clock
from barycenter.tasks.observability import artifacts
from barycenter.tasks.observability.artifacts import ProgressArtifact
from tests.infra.simulation import SimulatedClock


@pytest.fixture
def server(monkeypatch):
    """A server that is away until ``back`` is set, and what it was asked."""

    class Server:
        asked, back = [], False

        def create(self, share, key, description):
            self.asked.append(("create", key, share))
            if not self.back:
                raise httpx.ConnectError("refused")
            return key

        def update(self, key, progress):
            self.asked.append(("update", key, progress))
            return key

    server = Server()
    monkeypatch.setattr(artifacts, "_courtesy", artifacts._Courtesy())
    monkeypatch.setattr(artifacts, "create_progress_artifact", server.create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", server.update)
    monkeypatch.setattr(artifacts.FlowRunContext, "get", lambda: "a flow run")
    return server


def test_a_server_that_does_not_answer_is_asked_again_in_a_minute(server, caplog):
    clock = SimulatedClock()
    with use_clock(clock):
        first, second = ProgressArtifact("embed text"), ProgressArtifact("fit")
        first.show(1, 4)
        second.show(1, 4)
        clock.sleep(50)
        first.show(2, 4)
        assert len(server.asked) == 1
        assert [record.message for record in caplog.records] == [
            "the Prefect server does not answer, artifacts are sent again in a minute: refused"
        ]
        clock.sleep(20)
        server.back = True
        first.show(3, 4)
        clock.sleep(5)
        first.show(4, 4)
    assert server.asked[1:] == [
        ("create", "barycenter-progress-embed-text", 75.0),
        ("update", "barycenter-progress-embed-text", 100.0),
    ]


def test_what_comes_once_a_run_is_sent_although_the_server_was_away(server):
    with use_clock(SimulatedClock()):
        ProgressArtifact("embed text").show(1, 4)
        artifacts._courtesy.try_again()
        server.back = True
        ProgressArtifact("fit").show(1, 4)
    assert len(server.asked) == 2


def test_an_artifact_that_is_refused_holds_no_other_back(caplog):
    courtesy = artifacts._Courtesy()

    def refuse():
        raise ValueError("too large")

    assert courtesy(refuse) is None
    assert courtesy(lambda: "taken") == "taken"
    assert [record.message for record in caplog.records] == ["Prefect did not take an artifact or event: too large"]


def test_a_bar_that_is_refused_is_not_tried_again(server, monkeypatch, caplog):
    def refuse(*_args, **_options):
        raise ValueError("no such key")

    monkeypatch.setattr(artifacts, "create_progress_artifact", refuse)
    clock = SimulatedClock()
    with use_clock(clock):
        bar = ProgressArtifact("fit")
        for done in range(1, 4):
            bar.show(done, 4)
            clock.sleep(10)
    assert [record.message for record in caplog.records] == ["Prefect did not take an artifact or event: no such key"]
