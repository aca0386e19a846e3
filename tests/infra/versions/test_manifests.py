from dataclasses import replace

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.versions.commit import commit_manifest, promote_version
from barycenter.infra.versions.garbage import collect_garbage
from barycenter.infra.versions.manifests import (
    POINTER,
    manifest_path,
    newest_manifest,
    numbers_taken,
    read_manifest,
    verify,
    versions,
)
from tests.infra.versions.outputs import on_a_disk, output


def test_nothing_committed_is_one_line(storage):
    assert newest_manifest(storage) is None
    with pytest.raises(RunError, match=r"manifest\.json: nothing has been committed here yet"):
        read_manifest(storage)
    with pytest.raises(RunError, match=r"there is no version 3 \(there are: none\)"):
        read_manifest(storage, 3)


def test_an_empty_manifest_is_a_number_that_is_taken_and_no_version(storage, lease):
    commit_manifest(storage, output(storage, "v1"), lease)
    storage.create(manifest_path(2), b"")
    assert list(numbers_taken(storage)) == [1, 2]
    assert versions(storage) == [1]
    assert newest_manifest(storage).number == 1
    with pytest.raises(RunError, match=r"there is no version 2 \(there are: 1\)"):
        read_manifest(storage, 2)
    assert commit_manifest(storage, output(storage, "v2", parent=1), lease).number == 3


def test_a_version_that_is_not_there_is_said_with_what_became_of_it(storage, lease):
    commit_manifest(storage, output(storage, "v1"), lease, "manual")
    with pytest.raises(RunError, match=r"no version is shown to readers yet \(there are: 1\)"):
        read_manifest(storage)
    commit_manifest(storage, output(storage, "v2", parent=1), lease)
    collect_garbage(storage, lease)
    with pytest.raises(RunError, match=r"version 1 was deleted by `barycenter gc` \(there are: 2\)"):
        read_manifest(storage, 1)
    for number in (0, 7):
        with pytest.raises(RunError, match=rf"no version {number} \(there are: 2\)"):
            read_manifest(storage, number)


@on_a_disk
def test_a_version_between_others_was_deleted(storage, lease):
    for number in range(1, 5):
        commit_manifest(storage, output(storage, f"v{number}", parent=number - 1 or None), lease)
    promote_version(storage, 2, lease)
    collect_garbage(storage, lease)
    with pytest.raises(RunError, match=r"version 3 was deleted by `barycenter gc` \(there are: 2, 4\)"):
        read_manifest(storage, 3)


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


@on_a_disk
def test_files_that_lie_elsewhere_are_verified_too(storage):
    manifest = output(storage, "v1")
    file = replace(manifest.files[0], path="elsewhere/part-0.parquet")
    storage.write(file.path, storage.read(manifest.files[0].path))
    manifest = replace(manifest, files=(file,))
    assert verify(storage, manifest) == []
    storage.write(file.path, b"other")
    assert verify(storage, manifest) == [f"{file.path}: content differs from the manifest (SHA-256)"]
    storage.remove([file.path])
    assert verify(storage, manifest) == [f"{file.path}: missing"]
