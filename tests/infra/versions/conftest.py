import pytest

from barycenter.infra.storage import Storage
from barycenter.infra.versions.lease import acquire


@pytest.fixture(params=["local", "s3"])
def storage(request, tmp_path):
    if request.param == "local":
        return Storage(str(tmp_path))
    return Storage(f"s3://{request.getfixturevalue('s3_bucket')}/out", request.getfixturevalue("s3_server"))


@pytest.fixture
def lease(storage):
    return acquire(storage, "test")
