from dataclasses import replace

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.clock import use_clock
from barycenter.infra.storage import Storage
from barycenter.infra.versions import garbage
from barycenter.infra.versions.commit import commit_manifest, promote_version
from barycenter.infra.versions.embedding_files import Repairs, embedding_path, repairs, sample_path
from barycenter.infra.versions.garbage import (
    collect_garbage,
    find_garbage,
    pin_version,
    pinned_versions,
    unpin_version,
)
from barycenter.infra.versions.lease import RENEWALS, TERM_SECONDS, acquire
from barycenter.infra.versions.manifests import (
    COLLECTED,
    POINTER,
    manifest_path,
    read_manifest,
    report_path,
    scored_rows_path,
    verify,
    versions,
)
from tests.infra.simulation import SimulatedClock
from tests.infra.versions.outputs import on_a_disk, output
from tests.infra.versions.test_commit import taken_over


def test_garbage_is_what_no_kept_version_refers_to(storage, lease):
    commit_manifest(storage, output(storage, "v1", shards=("s1", "s2")), lease)
    commit_manifest(storage, output(storage, "v2", parent=1, shards=("s2", "s3")), lease)
    storage.write("report/report.json", b"{}")
    storage.write("plan.json", b"{}")
    storage.write(sample_path("e1"), b"of an encoder that a kept version has")
    storage.write(sample_path("old-encoder"), b"of no version")
    storage.write(embedding_path("text", "old-encoder", "s2"), b"x")
    storage.write("features/v2/label=1/part-9.parquet", b"stray")
    storage.write("corpus/of-nobody/bucket-0.parquet", b"joined once")
    storage.write("index/v1.faiss", b"of a version that goes")
    for path in (report_path("v1"), scored_rows_path("v1")):
        storage.write(path, b"on a version that goes")
    storage.write("features/v2/label=1/.part-0.parquet.00.tmp", b"half")
    expected = [
        "alignment/al-v1/alignment.json",
        "corpus/of-nobody/bucket-0.parquet",
        "embeddings/.samples/old-encoder.parquet",
        "embeddings/text/e1/s1.parquet",
        "embeddings/text/old-encoder/s2.parquet",
        "features/v1/label=1/part-0.parquet",
        "features/v2/label=1/.part-0.parquet.00.tmp",
        "features/v2/label=1/part-9.parquet",
        "head/v1/metrics.json",
        "index/v1.faiss",
        "manifests/1.json",
        "rejects/v1/part-0.parquet",
        "report/versions/v1.json",
        "report/versions/v1.rows.parquet",
    ]
    before = storage.list()
    assert find_garbage(storage).paths == expected
    assert storage.list() == before
    assert collect_garbage(storage, lease, keep=1) == expected
    assert storage.list() == sorted(set(before) - set(expected) | {COLLECTED})
    assert verify(storage, read_manifest(storage)) == []
    assert collect_garbage(storage, lease, keep=1) == []
    assert commit_manifest(storage, output(storage, "v3", parent=2), lease).number == 3


def test_kept_versions_keep_everything_they_need(storage, lease):
    commit_manifest(storage, output(storage, "v1", shards=("s1", "s2")), lease)
    commit_manifest(storage, output(storage, "v2", parent=1, shards=("s2", "s3")), lease)
    for name in ("index/v2.faiss", "index/v2.keys.parquet", report_path("v1"), scored_rows_path("v1")):
        storage.write(name, b"of a kept version")
    assert collect_garbage(storage, lease, keep=2) == []
    assert verify(storage, read_manifest(storage, 1)) == []
    with pytest.raises(RunError, match=r"version 9|manifests/9.json"):
        pin_version(storage, 9)
    with pytest.raises(RunError, match="at least one"):
        collect_garbage(storage, lease, keep=0)


def test_a_pin_that_comes_during_a_collection_is_taken_back(storage, lease, monkeypatch):
    commit_manifest(storage, output(storage, "v1"), lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    monkeypatch.setattr(
        "barycenter.infra.versions.garbage.wait_while_deleting", lambda _: collect_garbage(storage, lease, keep=1)
    )
    monkeypatch.setattr("barycenter.infra.versions.garbage.pinned_versions", lambda _: [])
    with pytest.raises(RunError, match="version 1 was deleted"):
        pin_version(storage, 1)
    assert storage.list("pins") == []


def committed(storage, lease, count, **kwargs):
    for number in range(1, count + 1):
        commit_manifest(storage, output(storage, f"v{number}", parent=number - 1 or None), lease, **kwargs)


def test_nothing_committed_is_no_garbage(storage, lease):
    with pytest.raises(RunError, match="nothing has been committed"):
        collect_garbage(storage, lease)


def test_what_readers_see_and_what_is_pinned_is_kept(storage, lease):
    committed(storage, lease, 4)
    promote_version(storage, 2, lease)
    pin_version(storage, 1)
    pin_version(storage, 1)
    assert pinned_versions(storage) == [1]
    assert storage.list("pins") == ["pins/1.json"]
    assert find_garbage(storage).versions == (3,)
    collect_garbage(storage, lease)
    for number in (1, 2, 4):
        assert verify(storage, read_manifest(storage, number)) == []
    assert read_manifest(storage).number == 2
    unpin_version(storage, 1)
    unpin_version(storage, 1)
    collect_garbage(storage, lease)
    assert versions(storage) == [2, 4]
    with pytest.raises(RunError, match="version 1 was deleted"):
        pin_version(storage, 1)
    assert pinned_versions(storage) == []


def test_versions_of_the_last_days_are_kept(tmp_path):
    storage, clock = Storage(str(tmp_path)), SimulatedClock()
    with use_clock(clock):
        lease = acquire(storage, "test")
        committed(storage, lease, 1)
        clock.now += 2 * 86_400
        committed(storage, lease, 2)
        clock.now += 86_400
        commit_manifest(storage, output(storage, "v3", parent=2), lease)
        assert find_garbage(storage, keep=1, keep_days=1.5).versions == (1,)
        assert find_garbage(storage, keep=1, keep_days=1).versions == (1,), "of the very last moment that is kept"
        assert find_garbage(storage, keep=1, keep_days=0.5).versions == (1, 2)
        assert find_garbage(storage, keep=1, keep_days=4).versions == ()
        assert collect_garbage(storage, lease, keep=1, keep_days=1.5)[-1] == "rejects/v1/part-0.parquet"


def test_the_number_of_a_deleted_version_is_not_free_for_one_that_comes_late(storage, lease, monkeypatch):
    """A run that was given up commits after others committed its number and the next, and deleted it."""
    late, manifest = lease, output(storage, "late")

    def overtake():
        other = taken_over(storage)
        committed(storage, other, 2)
        collect_garbage(storage, other)

    monkeypatch.setattr(late, "check", overtake)
    with pytest.raises(RunError, match="another run committed version 2"):
        commit_manifest(storage, manifest, late)
    assert versions(storage) == [2]


def test_a_deleted_version_that_a_late_request_writes_again_is_none(storage, lease):
    committed(storage, lease, 2)
    first = storage.read(manifest_path(1))
    collect_garbage(storage, lease)
    storage.create(manifest_path(1), first)
    assert versions(storage) == [2]
    assert collect_garbage(storage, lease) == [manifest_path(1)]
    assert commit_manifest(storage, output(storage, "v3", parent=2), lease).number == 3


def test_a_pin_waits_for_a_collection_that_may_not_have_seen_it(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    lease = acquire(storage, "gc", deletes=True)
    committed(storage, lease, 2)
    waited = []

    def collected(_storage):
        waited.append(True)
        collect_garbage(storage, lease)
        lease.release()

    monkeypatch.setattr(garbage, "wait_while_deleting", collected)
    pin_version(storage, 1)
    assert waited
    assert verify(storage, read_manifest(storage, 1)) == []


def test_a_collector_that_lost_its_lease_deletes_nothing_more(storage, lease, monkeypatch):
    committed(storage, lease, 2)
    before = set(storage.list())
    real = garbage.find_garbage

    def overtaken(*args, **kwargs):
        found = real(*args, **kwargs)
        taken_over(storage)
        return found

    monkeypatch.setattr(garbage, "find_garbage", overtaken)
    with pytest.raises(RunError, match="taken over"):
        collect_garbage(storage, lease)
    assert {path for path in before if not path.startswith("lease/")} <= set(storage.list())
    assert versions(storage) == [1, 2]


def test_a_collection_that_stood_still_between_two_files_looks_again(storage, lease, monkeypatch):
    """As when its machine sleeps; an object store gets many names in one request."""
    committed(storage, lease, 1)
    strays = [f"features/v0/part-{number}.parquet" for number in range(3)]
    for path in strays:
        storage.write(path, b"")
    clock, real = SimulatedClock(), Storage.remove

    def remove(self, paths):
        def sleeping_after_each():
            for path in paths:
                yield path
                if path in strays:
                    clock.now += 1000
                    taken_over(storage)

        real(self, sleeping_after_each())

    monkeypatch.setattr(Storage, "remove", remove)
    with use_clock(clock), pytest.raises(RunError, match="taken over"):
        collect_garbage(storage, lease)
    assert set(storage.list("features/v0")) >= set(strays[1:])


def test_a_version_that_a_killed_collection_condemned_is_none(storage, lease, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    committed(storage, lease, 2)
    monkeypatch.setattr(Storage, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        collect_garbage(storage, lease)
    with pytest.raises(RunError, match="version 1 was deleted"):
        promote_version(storage, 1, lease)
    with pytest.raises(RunError, match="version 1 was deleted"):
        pin_version(storage, 1)
    monkeypatch.undo()
    collect_garbage(storage, lease)
    assert verify(storage, read_manifest(storage)) == []
    assert storage.list("manifests") == [manifest_path(2)]


def test_versions_that_do_not_say_when_they_were_committed_are_kept(storage, lease):
    committed(storage, lease, 2)
    old = replace(read_manifest(storage, 1), committed="")
    storage.write(manifest_path(1), old.to_json())
    assert find_garbage(storage, keep=1, keep_days=30).versions == ()
    assert find_garbage(storage, keep=1).versions == (1,)


def test_a_damaged_list_of_deleted_versions_is_one_line(storage, lease):
    committed(storage, lease, 1)
    storage.write(COLLECTED, b"{}")
    with pytest.raises(RunError, match=r"/collected\.json is no list of deleted versions"):
        versions(storage)


@on_a_disk
def test_what_a_refit_goes_on_from_is_kept(storage, lease):
    manifest = replace(output(storage, "v1"), alignment={"moments": "m1"})
    for moments in ("m0", "m1"):
        storage.write(f"alignment/moments/{moments}/s1.npz", b"sums")
    commit_manifest(storage, manifest, lease)
    assert collect_garbage(storage, lease) == ["alignment/moments/m0/s1.npz"]


@on_a_disk
def test_a_collection_shuts_out_commits_of_a_holder_that_was_given_up(storage, lease, monkeypatch):
    commit_manifest(storage, output(storage, "v1"), lease)
    late, manifest = lease, output(storage, "v2", parent=1)
    monkeypatch.setattr(late, "check", lambda: collect_garbage(storage, taken_over(storage)))
    with pytest.raises(RunError, match="another run committed"):
        commit_manifest(storage, manifest, late)
    assert versions(storage) == [1]


@on_a_disk
def test_a_pointer_that_was_left_behind_is_mended_before_its_version_is_deleted(storage, lease):
    committed(storage, lease, 1)
    stale = storage.read(POINTER)
    committed(storage, lease, 2)
    storage.write(POINTER, stale)
    collect_garbage(storage, lease)
    assert read_manifest(storage).number == 2


@on_a_disk
def test_what_is_kept_lasts_before_anything_is_deleted(storage, lease, monkeypatch):
    committed(storage, lease, 2)
    synced = []
    monkeypatch.setattr(Storage, "sync_folders", lambda self, folders: synced.extend(folders))
    monkeypatch.setattr(Storage, "remove", lambda self, paths: pytest.fail("too early") if not synced else None)
    collect_garbage(storage, lease)
    assert {"", "manifests", "promotions"} <= set(synced)


@on_a_disk
def test_a_collection_gives_up_uploads_and_merges_notes_of_repairs(storage, lease, monkeypatch):
    manifest, given_up = output(storage, "v1", shards=("s1", "s2")), []
    for shard in manifest.shards:
        path = embedding_path("text", "e1", shard)
        mended = Repairs(storage, [path])
        storage.write(path, b"mended")
        mended.settle()
    commit_manifest(storage, manifest, lease)
    changed = repairs(storage)
    monkeypatch.setattr(Storage, "abandon_uploads", lambda self: given_up.append(self) or 0)
    assert collect_garbage(storage, lease) == []
    assert given_up == [storage]
    assert len(storage.list("embeddings/.repairs")) == 1
    assert repairs(storage) == changed
    assert changed.keys() == {embedding_path("text", "e1", shard) for shard in manifest.shards}


@on_a_disk
def test_a_collector_that_lost_its_lease_over_the_last_file_leaves_uploads_of_others(storage, lease, monkeypatch):
    committed(storage, lease, 1)
    storage.write("features/v0/part-0.parquet", b"")
    real = Storage.remove

    def remove(self, paths):
        paths = list(paths)
        real(self, paths)
        if "features/v0/part-0.parquet" in paths:
            taken_over(storage)

    monkeypatch.setattr(Storage, "remove", remove)
    monkeypatch.setattr(Storage, "abandon_uploads", lambda self: pytest.fail("of another process"))
    with pytest.raises(RunError, match="taken over"):
        collect_garbage(storage, lease)


def test_a_collector_looks_as_often_as_a_holder_renews_whether_it_still_holds_the_output(tmp_path, monkeypatch):
    clock, looks = SimulatedClock(), []
    with use_clock(clock):
        lease = acquire(Storage(str(tmp_path)), "gc", deletes=True)
        monkeypatch.setattr(lease, "check", lambda: looks.append(clock.now))
        paths = [str(number) for number in range(7)]
        for path in garbage.while_held(lease, paths):
            assert path == paths[int(clock.now // 5)]
            clock.now += 5
    assert looks == [0, TERM_SECONDS / RENEWALS, 2 * TERM_SECONDS / RENEWALS]


@on_a_disk
def test_a_pin_of_no_version_waits_for_nobody(storage, lease, monkeypatch):
    committed(storage, lease, 1)
    monkeypatch.setattr(garbage, "wait_while_deleting", lambda _: pytest.fail("waited"))
    with pytest.raises(RunError, match="no version 9"):
        pin_version(storage, 9)
