"""What is shown in Prefect of a stage's progress."""

from types import SimpleNamespace

import pytest

from barycenter.infra.clock import use_clock
from barycenter.infra.logs import bound
from barycenter.tasks.observability import artifacts
from barycenter.tasks.observability.artifacts import ProgressArtifact
from tests.infra.simulation import SimulatedClock


@pytest.fixture
def outbox(monkeypatch):
    """Keeps what is to be sent, as an outbox does."""

    class Box(dict):
        def show(self, what, send):
            self[what] = send

    box = Box()
    monkeypatch.setattr(artifacts, "current_outbox", lambda: box)
    return box


class Client:
    def __init__(self):
        self.asked = []

    def read_latest_artifacts(self, artifact_filter):
        return []

    def create_artifact(self, artifact):
        self.asked.append(("create", artifact.key, artifact.data))
        return SimpleNamespace(id="an id")

    def update_artifact(self, number, artifact):
        self.asked.append(("update", number, artifact.data))


def test_a_bar_is_made_once_and_moved_every_few_seconds(outbox):
    clock, client = SimulatedClock(), Client()
    with use_clock(clock), bound(run="emoji"):
        bar = ProgressArtifact("embed text")
        for done in (1, 2, 2, 4):
            bar.show(done, 4)
            for send in outbox.values():
                send(client)
            outbox.clear()
            clock.sleep(2)
        bar.show(4, 4, at_once=True)
    assert client.asked == [("create", "emoji-progress", 25.0), ("update", "an id", 50.0)]
    assert list(outbox) == ["the progress of embed text"]


def test_outside_of_a_flow_run_nothing_is_sent():
    ProgressArtifact("fit").show(1, 4)
