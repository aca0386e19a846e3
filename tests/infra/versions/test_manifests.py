import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pytest

from barycenter.fusion.dataset.schema import FeatureFile, Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.infra.versions.manifests import (
    POINTER,
    collect_garbage,
    commit_manifest,
    manifest_path,
    point_to_newest,
    read_manifest,
    verify,
    versions,
)


@pytest.fixture(params=["local", "s3"])
def storage(request, tmp_path):
    if request.param == "local":
        return Storage(str(tmp_path))
    return Storage(f"s3://{request.getfixturevalue('s3_bucket')}/out", request.getfixturevalue("s3_server"))


def output(storage, version, parent=None, shards=("s1",), encoder="e1"):
    """Writes a whole version but for its commit, and gives its manifest."""
    path = f"features/{version}/label=1/part-0.parquet"
    storage.write_table(path, pa.table({"key": ["a", "b", version]}))
    rejects = f"rejects/{version}/part-0.parquet"
    storage.write_table(rejects, pa.table({"key": ["bad"]}))
    storage.write(f"alignment/al-{version}/alignment.json", b"{}")
    storage.write(f"head/{version}/metrics.json", b"{}")
    for shard in shards:
        storage.write(embedding_path("text", encoder, shard), b"vectors")
    size = storage.sizes("features")[path]
    return Manifest(
        version=version,
        key="key",
        dim=8,
        dtype="float32",
        inputs={"text": {"encoder_id": encoder, "embedding_id": encoder}},
        alignment_id=f"al-{version}",
        files=(FeatureFile(path, 3, size, storage.sha256(path)),),
        rejects=(rejects,),
        shards=tuple(shards),
        parent=parent,
    )


def test_versions_follow_each_other_and_stay_readable(storage):
    assert point_to_newest(storage) is None
    assert commit_manifest(storage, output(storage, "v1")) == 1
    assert commit_manifest(storage, output(storage, "v2", parent=1)) == 2
    assert versions(storage) == [1, 2]
    assert read_manifest(storage).version == "v2"
    assert read_manifest(storage).number == 2
    assert read_manifest(storage, 1).version == "v1"
    with pytest.raises(RunError, match=r"no version 7 \(there are: 1, 2\)"):
        read_manifest(storage, 7)


def test_nothing_committed_is_one_line(storage):
    with pytest.raises(RunError, match="nothing has been committed"):
        read_manifest(storage)
    with pytest.raises(RunError, match="nothing has been committed"):
        collect_garbage(storage, 1)


def test_of_two_runs_on_one_parent_the_second_refuses(storage):
    first, second = output(storage, "v1"), output(storage, "v2")
    commit_manifest(storage, first)
    with pytest.raises(RunError, match="another run committed version 1"):
        commit_manifest(storage, second)
    assert versions(storage) == [1]
    assert read_manifest(storage).version == "v1"


def test_a_race_has_one_winner_and_the_pointer_names_it(storage):
    manifests = [output(storage, f"v{number}") for number in range(6)]

    def race(manifest):
        try:
            return commit_manifest(storage, manifest)
        except RunError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(race, manifests))
    assert results.count(1) == 1
    assert sum("another run committed version 1" in str(result) for result in results) == 5
    assert read_manifest(storage).version == manifests[results.index(1)].version


EMPTY = Manifest(version="", key="key", dim=8, dtype="float32", inputs={}, files=())


def _race(root, number, results):
    storage = Storage(root)
    try:
        results.put(commit_manifest(storage, replace(EMPTY, version=f"v{number}")))
    except RunError:
        results.put(0)


def test_a_race_of_processes_has_one_winner(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_race, args=(str(tmp_path), number, results)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(results.get() for _ in processes) == [0, 0, 0, 1]
    assert verify(Storage(str(tmp_path)), read_manifest(Storage(str(tmp_path)))) == []


def test_committing_the_same_again_makes_no_version(storage):
    manifest = output(storage, "v1")
    assert commit_manifest(storage, manifest) == 1
    assert commit_manifest(storage, replace(manifest, other_keys={"created": "later"})) == 1
    assert commit_manifest(storage, replace(manifest, parent=1)) == 1
    assert versions(storage) == [1]


def test_a_rollback_is_a_new_version_with_old_content(storage):
    commit_manifest(storage, output(storage, "v1"))
    commit_manifest(storage, output(storage, "v2", parent=1))
    assert commit_manifest(storage, replace(read_manifest(storage, 1), parent=2)) == 3
    assert read_manifest(storage).version == "v1"
    assert verify(storage, read_manifest(storage)) == []


def test_a_kill_between_commit_and_pointer_is_mended(storage):
    commit_manifest(storage, output(storage, "v1"))
    stale = storage.read(POINTER)
    commit_manifest(storage, output(storage, "v2", parent=1))
    storage.write(POINTER, stale)
    assert point_to_newest(storage) == 2
    assert read_manifest(storage).version == "v2"
    storage.remove([POINTER])
    assert commit_manifest(storage, output(storage, "v2", parent=1)) == 2
    assert storage.read(POINTER) == storage.read(manifest_path(2))


def test_a_damaged_manifest_is_one_line(storage):
    storage.write(POINTER, b'{"version"')
    with pytest.raises(RunError, match="not a manifest"):
        read_manifest(storage)


def test_verify_names_every_kind_of_damage(storage):
    manifest = output(storage, "v1")
    path = manifest.files[0].path
    assert verify(storage, manifest) == []
    longer = replace(manifest.files[0], rows=4)
    assert "4 rows" not in str(verify(storage, manifest))
    assert verify(storage, replace(manifest, files=(longer,))) == [f"{path}: 3 rows, the manifest says 4"]
    whole = storage.read(path)
    storage.write(path, bytes([whole[0] ^ 1]) + whole[1:])
    assert verify(storage, manifest) == [f"{path}: content differs from the manifest (SHA-256)"]
    storage.write(path, whole[:-1])
    assert verify(storage, manifest) == [f"{path}: {len(whole) - 1} bytes, the manifest says {len(whole)}"]
    storage.remove([path, "rejects/v1/part-0.parquet"])
    assert verify(storage, manifest) == [f"{path}: missing", "rejects/v1/part-0.parquet: missing"]


def test_garbage_is_what_no_kept_version_refers_to(storage):
    commit_manifest(storage, output(storage, "v1", shards=("s1", "s2")))
    commit_manifest(storage, output(storage, "v2", parent=1, shards=("s2", "s3")))
    storage.write("report/report.json", b"{}")
    storage.write("plan.json", b"{}")
    storage.write(embedding_path("text", "old-encoder", "s2"), b"x")
    storage.write("features/v2/label=1/part-9.parquet", b"stray")
    storage.write("features/v2/label=1/.part-0.parquet.00.tmp", b"half")
    expected = [
        "alignment/al-v1/alignment.json",
        "embeddings/text/e1/s1.parquet",
        "embeddings/text/old-encoder/s2.parquet",
        "features/v1/label=1/part-0.parquet",
        "features/v2/label=1/.part-0.parquet.00.tmp",
        "features/v2/label=1/part-9.parquet",
        "head/v1/metrics.json",
        "manifests/1.json",
        "rejects/v1/part-0.parquet",
    ]
    before = storage.list()
    assert collect_garbage(storage, keep=1, dry_run=True) == expected
    assert storage.list() == before
    assert collect_garbage(storage, keep=1) == expected
    assert storage.list() == sorted(set(before) - set(expected))
    assert verify(storage, read_manifest(storage)) == []
    assert collect_garbage(storage, keep=1) == []
    assert commit_manifest(storage, output(storage, "v3", parent=2)) == 3


def test_kept_versions_keep_everything_they_need(storage):
    commit_manifest(storage, output(storage, "v1", shards=("s1", "s2")))
    commit_manifest(storage, output(storage, "v2", parent=1, shards=("s2", "s3")))
    assert collect_garbage(storage, keep=2) == []
    assert verify(storage, read_manifest(storage, 1)) == []
    with pytest.raises(RunError, match="at least one"):
        collect_garbage(storage, keep=0)
