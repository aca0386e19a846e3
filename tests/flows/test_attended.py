"""A run that somebody waits for."""

import threading
from types import SimpleNamespace

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Failed

from barycenter.flows.attended import AttendedRun, ServerIsSilentError
from barycenter.flows.ending import Ending
from barycenter.fusion.errors import RunError


def test_cancellation_is_asked_of_the_server_that_has_the_run(monkeypatch):
    asked = []
    run = AttendedRun()
    done = threading.Event()

    def poll(_):
        asked.append(PREFECT_API_URL.value())
        done.set()

    monkeypatch.setattr(run, "_poll", poll)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:7/api"}):
        run.began(SimpleNamespace(id="run"))
    assert done.wait(60)
    assert asked == ["http://127.0.0.1:7/api"]


def request(state):
    return httpx.Request("POST", "http://server/api/flow_runs/1/set_state", json={"state": {"type": state}})


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        (Ending({}), "COMPLETED"),
        (Ending(error=ValueError()), "FAILED"),
        (Ending(error=RunError("full"), state=Failed(message="full")), "FAILED"),
        (Ending(error=RunError("stop"), state=Cancelled(message="stop")), "CANCELLED"),
    ],
)
def test_the_engine_sets_the_state_that_the_run_ended_in_or_none(ending, state):
    """A server that did not take ``Completed`` in time must not hear of a failure instead."""
    run = AttendedRun()
    run._outbox = SimpleNamespace(silent=False, settle=lambda _: True)
    run._before_request(request("RUNNING"))
    run.ended(ending)
    for tried in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
        if tried == state:
            run._before_request(request(tried))
        else:
            with pytest.raises(ServerIsSilentError):
                run._before_request(request(tried))


def test_at_the_end_a_silent_server_is_asked_nothing():
    run = AttendedRun()
    run._outbox = SimpleNamespace(silent=True, settle=lambda _: True)
    run._before_request(request("RUNNING"))
    run.ended(Ending({}))
    with pytest.raises(ServerIsSilentError):
        run._before_request(request("COMPLETED"))
