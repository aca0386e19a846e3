import json

import pytest

from barycenter.fusion.dataset.schema import FeatureFile
from barycenter.infra.storage import Storage
from barycenter.tasks.fuse.records import done_blocks, record_path, remove_records, remove_unlisted


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path))


def test_records_of_any_number_of_blocks_are_found_again(storage):
    record = {"files": [], "rejects": []}
    for index in (0, 99_999, 100_000, 1_000_001):
        storage.write(record_path("v", index), json.dumps(record).encode())
    assert done_blocks(storage, "v") == dict.fromkeys((0, 99_999, 100_000, 1_000_001), record)


def test_a_record_without_its_files_is_no_block_done(storage):
    feature, reject = "features/v/part-0.parquet", "rejects/v/part-0.parquet"
    storage.write(
        record_path("v", 0), json.dumps({"files": [{"path": feature, "bytes": 3}], "rejects": [reject]}).encode()
    )
    assert done_blocks(storage, "v") == {}
    storage.write(feature, b"abc")
    assert done_blocks(storage, "v") == {}
    storage.write(reject, b"")
    assert list(done_blocks(storage, "v")) == [0]
    storage.write(feature, b"ab")
    assert done_blocks(storage, "v") == {}


def test_a_damaged_record_is_no_block_done(storage):
    for index, content in enumerate((b'{"files": [], "rejects": []}', b'{"files": [], "rej', b"[]")):
        storage.write(record_path("v", index), content)
    assert list(done_blocks(storage, "v")) == [0]


def test_records_stay_until_the_version_is_committed(storage):
    for path in ("features/v/p=a/part-0.parquet", "features/v/p=a/part-9.parquet", record_path("v", 0)):
        storage.write(path, b"{}")
    remove_unlisted(storage, "v", [FeatureFile("features/v/p=a/part-0.parquet", 1)])
    assert storage.list("features/v") == [record_path("v", 0), "features/v/p=a/part-0.parquet"]
    remove_records(storage, "v")
    assert storage.list("features/v") == ["features/v/p=a/part-0.parquet"]
