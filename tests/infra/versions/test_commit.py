import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import (
    commit_manifest,
    fence,
    follow_promotions,
    promote_version,
    show_newest,
    shown_version,
)
from barycenter.infra.versions.lease import Lease, acquire, newest_term
from barycenter.infra.versions.manifests import (
    POINTER,
    manifest_path,
    newest_manifest,
    read_manifest,
    verify,
    versions,
)
from tests.infra.versions.outputs import on_a_disk, output


def taken_over(storage) -> Lease:
    """The lease of a process that took the output over although its holder lives; as after a minute's silence."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("barycenter.infra.versions.lease.TERM_SECONDS", 0.0)
        return acquire(storage, "another run")


def test_versions_follow_each_other_and_stay_readable(storage, lease):
    assert follow_promotions(storage) is None
    first = commit_manifest(storage, output(storage, "v1"), lease)
    second = commit_manifest(storage, output(storage, "v2", parent=1), lease)
    assert (first.number, second.number, second.parent) == (1, 2, 1)
    assert second.term == lease.number
    assert second.committed.endswith("+00:00")
    assert versions(storage) == [1, 2]
    assert {"manifest.json", "manifests/1.json", "manifests/2.json"} <= set(storage.list())
    assert read_manifest(storage) == read_manifest(storage, 2) == second
    assert read_manifest(storage, 1) == first


def test_of_two_runs_on_one_parent_the_second_refuses(storage, lease):
    first, second = output(storage, "v1"), output(storage, "v2")
    commit_manifest(storage, first, lease)
    with pytest.raises(RunError, match="another run committed version 1"):
        commit_manifest(storage, second, lease)
    assert versions(storage) == [1]
    assert read_manifest(storage).version == "v1"
    commit_manifest(storage, output(storage, "v3", parent=1), lease)
    with pytest.raises(RunError, match="another run committed version 2 meanwhile, this one was built on none"):
        commit_manifest(storage, second, lease)


def test_a_race_has_one_winner_and_the_pointer_names_it(storage, lease):
    manifests = [output(storage, f"v{number}") for number in range(6)]

    def race(manifest):
        try:
            return commit_manifest(storage, manifest, lease).number
        except RunError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(race, manifests))
    assert results.count(1) == 1
    assert sum("another run committed version 1" in str(result) for result in results) == 5
    assert read_manifest(storage).version == manifests[results.index(1)].version


EMPTY = Manifest(version="", key="key", dim=8, dtype="float32", inputs={}, files=())


def _race(root, lease, number, results):
    try:
        results.put(commit_manifest(Storage(root), replace(EMPTY, version=f"v{number}"), lease).number)
    except RunError:
        results.put(0)


def test_a_race_of_processes_has_one_winner(tmp_path):
    context = multiprocessing.get_context("fork")
    results, lease = context.Queue(), acquire(Storage(str(tmp_path)), "race")
    processes = [context.Process(target=_race, args=(str(tmp_path), lease, number, results)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(results.get() for _ in processes) == [0, 0, 0, 1]
    assert verify(Storage(str(tmp_path)), read_manifest(Storage(str(tmp_path)))) == []


def test_committing_the_same_again_makes_no_version(storage, lease):
    manifest = output(storage, "v1")
    made = commit_manifest(storage, manifest, lease)
    assert commit_manifest(storage, replace(manifest, other_keys={"created": "later"}), lease) == made
    assert commit_manifest(storage, replace(manifest, parent=1), lease) == made
    assert versions(storage) == [1]


def test_a_kill_between_commit_and_pointer_is_mended(storage, lease):
    commit_manifest(storage, output(storage, "v1"), lease)
    stale = storage.read(POINTER)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    storage.write(POINTER, stale)
    assert follow_promotions(storage) == 2
    assert read_manifest(storage).version == "v2"
    storage.remove([POINTER])
    assert commit_manifest(storage, output(storage, "v2", parent=1), lease).number == 2
    assert storage.read(POINTER) == storage.read(manifest_path(2))


def test_a_pointer_that_another_moved_meanwhile_is_looked_at_again(storage, lease, monkeypatch):
    commit_manifest(storage, output(storage, "v1"), lease)
    late = storage.read(POINTER)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    real, storage_replace = [], Storage.replace

    def overtaken(self, path, data, before):
        if not real:
            real.append(path)
            self.write(path, late)
        return storage_replace(self, path, data, before)

    monkeypatch.setattr(Storage, "replace", overtaken)
    storage.remove([POINTER])
    assert follow_promotions(storage) == 2
    assert storage.read(POINTER) == storage.read(manifest_path(2))


def test_a_holder_that_was_given_up_does_not_commit(storage, lease):
    late, manifest = lease, output(storage, "v1")
    other = taken_over(storage)
    with pytest.raises(RunError, match="was taken over by another run"):
        commit_manifest(storage, manifest, late)
    assert versions(storage) == []
    assert commit_manifest(storage, manifest, other).term == other.number > late.number


def fence_after(storage, lease, monkeypatch) -> None:
    """Another process takes over and puts up a fence right after the lease is found valid."""

    def fence_meanwhile():
        other = taken_over(storage)
        assert other.unfenced
        fence(storage, other)
        assert not other.unfenced
        assert not newest_term(storage).unfenced

    monkeypatch.setattr(lease, "check", fence_meanwhile)


def test_a_fence_takes_the_number_of_a_commit_that_comes_late(storage, lease, monkeypatch):
    commit_manifest(storage, output(storage, "v1"), lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    fence_after(storage, lease, monkeypatch)
    with pytest.raises(RunError, match="another run committed"):
        commit_manifest(storage, output(storage, "v3", parent=2), lease)
    assert versions(storage) == [1, 2]


def test_a_fence_takes_the_number_of_a_promotion_that_comes_late(storage, lease, monkeypatch):
    commit_manifest(storage, output(storage, "v1"), lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    fence_after(storage, lease, monkeypatch)
    with pytest.raises(RunError, match="another process"):
        promote_version(storage, 1, lease)
    assert shown_version(storage) == read_manifest(storage).number == 2


def test_a_promotion_does_not_come_before_a_commit_made_meanwhile(storage, lease, monkeypatch):
    commit_manifest(storage, output(storage, "v1"), lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    third = output(storage, "v3", parent=2)
    monkeypatch.setattr(lease, "check", lambda: commit_manifest(storage, third, taken_over(storage)))
    with pytest.raises(RunError, match="another process"):
        promote_version(storage, 1, lease)
    assert shown_version(storage) == read_manifest(storage).number == 3


def test_without_a_holder_that_was_given_up_there_is_no_fence(storage, lease):
    lease.release()
    next_lease = acquire(storage, "gc")
    fence(storage, next_lease)
    assert storage.list("manifests") == storage.list("promotions") == []
    assert next_lease.previous == lease.number


def test_a_manual_commit_waits_for_its_promotion(storage, lease):
    commit_manifest(storage, output(storage, "v1"), lease, "manual")
    assert shown_version(storage) is None
    assert not storage.exists(POINTER)
    promote_version(storage, 1, lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease, "manual")
    assert read_manifest(storage).version == "v1"
    assert read_manifest(storage).number == shown_version(storage) == 1
    assert newest_manifest(storage).version == "v2"
    promote_version(storage, 2, lease)
    assert read_manifest(storage).version == "v2"


def test_a_rollback_holds_until_a_version_shows_itself(storage, lease):
    commit_manifest(storage, output(storage, "v1"), lease)
    second = commit_manifest(storage, output(storage, "v2", parent=1), lease)
    assert promote_version(storage, 1, lease).version == "v1"
    assert verify(storage, read_manifest(storage)) == []
    assert versions(storage) == [1, 2]
    show_newest(storage, second, lease, "auto")
    assert commit_manifest(storage, replace(second, parent=2), lease).number == 2
    assert shown_version(storage) == read_manifest(storage).number == 1
    commit_manifest(storage, output(storage, "v3", parent=2), lease, "manual")
    assert read_manifest(storage).number == 1
    commit_manifest(storage, output(storage, "v4", parent=3), lease)
    assert read_manifest(storage).number == 4
    assert promote_version(storage, 4, lease).number == 4
    assert storage.list("promotions") == ["promotions/1.json"]


def test_a_job_that_promotes_shows_what_waits_for_a_promotion(storage, lease):
    manifest = output(storage, "v1")
    commit_manifest(storage, manifest, lease, "manual")
    assert commit_manifest(storage, manifest, lease, "auto").number == 1
    assert read_manifest(storage).number == 1


def test_what_cannot_be_promoted_is_said(storage, lease):
    made = commit_manifest(storage, output(storage, "v1"), lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    with pytest.raises(RunError, match="no version 9"):
        promote_version(storage, 9, lease)
    storage.remove([made.files[0].path])
    with pytest.raises(RunError, match="1 of its files are gone"):
        promote_version(storage, 1, lease)
    assert read_manifest(storage).number == 2


def test_a_job_that_promotes_leaves_an_operators_choice(storage, lease):
    commit_manifest(storage, output(storage, "v1"), lease, "manual")
    newest = output(storage, "v2", parent=1)
    commit_manifest(storage, newest, lease, "manual")
    promote_version(storage, 2, lease)
    promote_version(storage, 1, lease)
    commit_manifest(storage, newest, lease, "auto")
    assert read_manifest(storage).number == 1


@on_a_disk
def test_a_promotion_says_its_term_and_the_pointer_which_promotion_it_follows(storage, lease):
    commit_manifest(storage, replace(output(storage, "v1"), other_keys={"created": "by hand"}), lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    for version in (1, 2, 1):
        lease.renew()
        promote_version(storage, version, lease)
    assert storage.list("promotions") == [f"promotions/{number}.json" for number in (1, 2, 3)]
    assert json.loads(storage.read("promotions/3.json")) == {"version": 1, "after": 2, "term": lease.number}
    assert read_manifest(storage).other_keys == {"created": "by hand", "promotion": 3}
    assert shown_version(storage) == 1


@on_a_disk
def test_a_fence_takes_the_number_that_follows_several_promotions(storage, lease, monkeypatch):
    commit_manifest(storage, output(storage, "v1"), lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    for version in (1, 2):
        promote_version(storage, version, lease)
    fence_after(storage, lease, monkeypatch)
    with pytest.raises(RunError, match="another process"):
        promote_version(storage, 1, lease)
    assert shown_version(storage) == read_manifest(storage).number == 2


@on_a_disk
def test_a_fence_holds_where_nothing_is_committed_yet(storage, lease, monkeypatch):
    manifest = output(storage, "v1")
    fence_after(storage, lease, monkeypatch)
    with pytest.raises(RunError, match="another run committed"):
        commit_manifest(storage, manifest, lease)
    assert versions(storage) == []


@on_a_disk
def test_a_holder_that_was_given_up_does_not_promote(storage, lease):
    commit_manifest(storage, output(storage, "v1"), lease)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    taken_over(storage)
    with pytest.raises(RunError, match="was taken over by another run"):
        promote_version(storage, 1, lease)
    assert storage.list("promotions") == []
    assert read_manifest(storage).number == 2


@on_a_disk
@pytest.mark.parametrize("content", [b"{", b"[]", b'{"version": 1}', b'{"after": 1}', b'{"version": null, "after": 1}'])
def test_a_damaged_promotion_is_one_line(storage, lease, content):
    commit_manifest(storage, output(storage, "v1"), lease)
    storage.write("promotions/1.json", content)
    with pytest.raises(RunError, match=r"promotions/1\.json: not a promotion .*; restore or delete it"):
        shown_version(storage)


@pytest.fixture
def steps(monkeypatch):
    """The folders that are made to last and the files that are made, in order."""
    steps, sync_folders, create = [], Storage.sync_folders, Storage.create

    def synced(self, folders):
        folders = list(folders)
        steps.extend(f"{folder}/" for folder in folders)
        sync_folders(self, folders)

    def created(self, path, data):
        made = create(self, path, data)
        steps.append(path)
        return made

    monkeypatch.setattr(Storage, "sync_folders", synced)
    monkeypatch.setattr(Storage, "create", created)
    return steps


OF_VERSIONS = {"/", "manifests/", "promotions/"}


@on_a_disk
def test_what_a_version_is_read_with_lasts_before_it_is_committed(storage, lease, steps):
    commit_manifest(storage, output(storage, "v1"), lease)
    assert {"alignment/", "alignment/al-v1/"} <= set(steps[: steps.index(manifest_path(1))])


@on_a_disk
def test_what_is_there_already_lasts_before_it_is_shown_or_promoted(storage, lease, steps):
    """Who committed it may have been killed before it did so."""
    manifest = output(storage, "v1")
    commit_manifest(storage, manifest, lease, "manual")
    del steps[:]
    commit_manifest(storage, manifest, lease, "manual")
    assert {*OF_VERSIONS, "alignment/", "alignment/al-v1/"} <= set(steps)
    del steps[:]
    promote_version(storage, 1, lease)
    assert set(steps[: steps.index("promotions/1.json")]) >= OF_VERSIONS
