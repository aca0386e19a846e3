"""What events of a run say, and about what."""

import logging
from types import SimpleNamespace

import pytest

from barycenter.fusion.errors import BadInputsError, BusyError, JobError, RunError
from barycenter.tasks.observability import events


@pytest.fixture
def emitted(monkeypatch):
    """Events as they would be sent: name, resource, payload."""
    found = []
    monkeypatch.setattr(events, "current_outbox", object)
    monkeypatch.setattr(
        events, "emit_event", lambda name, resource, payload, related: found.append((name, resource, payload))
    )
    return found


RUN = SimpleNamespace(
    job=SimpleNamespace(name="emoji", fingerprint=lambda: "f00"),
    storage=SimpleNamespace(uri=lambda: "/out"),
    rows=10,
    shards=(),
    inputs=("text",),
)
OUT = {"prefect.resource.id": "/out", "prefect.resource.name": "emoji"}


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (JobError("corpus.path", "is missing"), "job", "corpus.path: is missing"),
        (BusyError("out is held", skip=False), "busy", "out is held"),
        (RunError("the disk is full"), "run", "the disk is full"),
        (ValueError("x"), "unexpected", "ValueError: x"),
    ],
)
def test_a_failure_has_its_kind_and_reason(emitted, error, kind, reason):
    with events.events_of("job.yaml"):
        events.run_failed(error)
    about = {"prefect.resource.id": "barycenter.job.job.yaml", "prefect.resource.name": "job.yaml"}
    assert emitted == [(events.FAILED, about, {"kind": kind, "reason": reason})]


def test_too_many_bad_inputs_are_an_event_of_their_own(emitted):
    with events.events_of("job.yaml"):
        events.run_started(RUN)
        events.run_failed(BadInputsError("half of them"))
    assert [name for name, _, _ in emitted] == [events.STARTED, events.FAILED, events.TOO_MANY_BAD]
    assert {str(resource) for _, resource, _ in emitted} == {str(OUT)}, "the output, once it is known"


def test_drift_is_logged_and_an_event(emitted, caplog):
    events.dataset_drifted(RUN, {"mean_shift": {"text": 1.0}}, ["drift: of text"])
    assert emitted == [(events.DRIFTED, OUT, {"warnings": ["drift: of text"], "mean_shift": {"text": 1.0}})]
    assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, "drift: of text")]


def test_outside_of_a_flow_run_nothing_is_emitted(monkeypatch):
    monkeypatch.setattr(events, "emit_event", lambda *_, **__: pytest.fail("an event"))
    events.dataset_drifted(RUN, {}, [])
