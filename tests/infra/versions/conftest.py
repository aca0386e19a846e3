"""Imports the project inside: pytest loads this file before `make mutants` changes what it would import."""

import pytest


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def storage(request, tmp_path):
    from barycenter.infra.storage import Storage

    if request.param == "local":
        return Storage(str(tmp_path))
    return Storage(f"s3://{request.getfixturevalue('s3_bucket')}/out", request.getfixturevalue("s3_server"))


@pytest.fixture
def lease(storage):
    from barycenter.infra.versions.lease import acquire

    return acquire(storage, "test")


@pytest.fixture
def clock(monkeypatch):
    """Simulated time, in which nobody can ask the machine which processes live."""
    from barycenter.infra.clock import use_clock
    from barycenter.infra.versions import lease as leases
    from tests.infra.simulation import SimulatedClock

    monkeypatch.setattr(leases, "process_lives", lambda process: None)
    clock = SimulatedClock()
    with use_clock(clock):
        yield clock
