"""Create-only writes on file systems that know no hard links, as some FUSE and SMB mounts."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from barycenter.infra.storage import Storage
from barycenter.infra.storage import local as _local


@pytest.fixture
def linkless(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    return Storage(str(tmp_path / "out"))


def test_of_many_writers_one_creates_and_readers_see_the_whole_file(linkless):
    size = 1 << 16

    def write(number):
        created = linkless.create("manifests/1.json", bytes([number]) * size)
        return created, linkless.read("manifests/1.json")

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(write, range(24)))
    winners = [number for number, (created, _) in enumerate(outcomes) if created]
    assert len(winners) == 1
    assert {content for _, content in outcomes} == {bytes(winners) * size}
    assert linkless.list() == ["manifests/1.json"]


def test_a_killed_writers_claim_is_taken_away(linkless, tmp_path, monkeypatch):
    monkeypatch.setattr(_local, "_CLAIM_SECONDS", 0.1)
    folder = tmp_path / "out" / "manifests"
    folder.mkdir(parents=True)
    claim = folder / ".1.json.claim.tmp"
    claim.touch()
    assert Storage.is_temporary("manifests/.1.json.claim.tmp")
    assert linkless.create("manifests/1.json", b"one")
    assert not linkless.create("manifests/1.json", b"two")
    assert linkless.read("manifests/1.json") == b"one"
    assert linkless.list() == ["manifests/1.json"]


def test_a_link_whose_answer_is_lost_is_ones_own(tmp_path, monkeypatch):
    """As NFS does: the server has made the link, the client asks again and reads that the name is taken."""
    link, asked = Path.hardlink_to, []

    def ask_twice(self, target):
        asked.append(self)
        link(self, target)
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", ask_twice)
    storage = Storage(str(tmp_path / "out"))
    assert storage.create("manifests/1.json", b"ours")
    assert not storage.create("manifests/1.json", b"theirs")
    assert len(asked) == 2
    assert storage.read("manifests/1.json") == b"ours"
    assert storage.list() == ["manifests/1.json"]


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch):
    sync = os.fsync

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - a descriptor
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    monkeypatch.setattr(_local.os, "fsync", fsync)
    storage = Storage(str(tmp_path))
    storage.write("a", b"1")
    assert storage.create("b", b"2")


def test_any_other_fault_of_a_link_is_reported(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "hardlink_to", full)
    with pytest.raises(Exception, match="no space left"):
        Storage(str(tmp_path)).create("a", b"1")
