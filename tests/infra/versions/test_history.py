from dataclasses import replace

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import commit_manifest
from barycenter.infra.versions.history import compare, find_version, history
from barycenter.infra.versions.lease import acquire
from barycenter.infra.versions.manifests import read_manifest
from tests.infra.versions.outputs import output


@pytest.fixture
def storage(tmp_path):
    """Two versions, the second of another source and one shard more."""
    storage = Storage(str(tmp_path))
    rows = {"read": 3, "written": 3, "rejected": 0}
    first = replace(output(storage, "v1"), rows=rows, sources=(source("a.jsonl"), source("b.jsonl")))
    second = output(storage, "v2", parent=1, shards=("s1", "s2"), encoder="e2")
    rows = rows | {"read": 5, "rejected": 2}
    second = replace(second, rows=rows, sources=(source("a.jsonl", "2"), source("c.jsonl")), dim=16)
    lease = acquire(storage, "test")
    commit_manifest(storage, first, lease)
    commit_manifest(storage, second, lease)
    return storage


def source(relative, stamp="1"):
    return {"relative": relative, "size": 10, "stamp": stamp, "rows": 3}


def test_versions_are_listed_and_compared(storage, tmp_path):
    assert [manifest.number for manifest in history(storage)] == [1, 2]
    comparison = compare(storage, 1, 2)
    assert comparison["rows"] == {"read": [3, 5], "written": [3, 3], "rejected": [0, 2]}
    assert comparison["sources"] == {"added": ["c.jsonl"], "removed": ["b.jsonl"], "changed": ["a.jsonl"]}
    assert comparison["shards"] == {"kept": 1, "added": 1, "removed": 0}
    assert comparison["files"] == {"kept": 0, "added": 1, "removed": 1}
    assert comparison["changed"]["dim"] == [8, 16]
    assert comparison["changed"]["encoder of text"] == ["e1", "e2"]
    assert "dtype" not in comparison["changed"]
    with pytest.raises(RunError, match="no version 9"):
        compare(storage, 1, 9)
    with pytest.raises(RunError, match="nothing has been committed"):
        history(Storage(str(tmp_path / "empty")))


def test_a_version_is_found_while_its_files_are_there(storage):
    assert find_version(storage, "v2").number == 2
    assert find_version(storage, "v1").number == 1
    storage.remove([read_manifest(storage, 1).files[0].path])
    assert find_version(storage, "v1") is None
    assert find_version(storage, "v9") is None
