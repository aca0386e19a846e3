import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import commit_manifest
from barycenter.infra.versions.history import find_version, history
from barycenter.infra.versions.lease import acquire
from barycenter.infra.versions.manifests import read_manifest
from tests.infra.versions.outputs import output


@pytest.fixture
def storage(tmp_path):
    """Two versions."""
    storage = Storage(str(tmp_path))
    first, second = output(storage, "v1"), output(storage, "v2", parent=1)
    lease = acquire(storage, "test")
    commit_manifest(storage, first, lease)
    commit_manifest(storage, second, lease)
    return storage


def test_versions_are_listed(storage, tmp_path):
    assert [manifest.number for manifest in history(storage)] == [1, 2]
    with pytest.raises(RunError, match="nothing has been committed"):
        history(Storage(str(tmp_path / "empty")))


def test_a_version_is_found_while_its_files_are_there(storage):
    assert find_version(storage, "v2").number == 2
    assert find_version(storage, "v1").number == 1
    storage.remove([read_manifest(storage, 1).files[0].path])
    assert find_version(storage, "v1") is None
    assert find_version(storage, "v9") is None
