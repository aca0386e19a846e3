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
