import hashlib
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter.infra.storage import Storage
from barycenter.infra.versions import digest_index
from barycenter.infra.versions.digest_index import (
    DigestIndex,
    IndexedFile,
    IndexFile,
    is_index,
    sort_entries,
    to_entries,
    update_index,
)


def digests(*contents):
    """As an embedding file has them: null for a row without one."""
    made = [None if each is None else hashlib.blake2b(str(each).encode(), digest_size=16).digest() for each in contents]
    return pa.array(made, pa.binary(16))


def output(storage, **files):
    """Files of contents by name, and how an index is made of them."""

    def read(file):
        return (file, [digests(*files[file.path])]) if file.path in files else None

    def update(changed=()):
        index = DigestIndex.open(storage, "e")
        update_index(index, [IndexedFile(path) for path in files], read, changed)
        return index

    return update


def where(index, *contents):
    return {contents[place]: (file.path, row) for place, (file, row) in index.find(digests(*contents)).items()}


@pytest.fixture
def small(monkeypatch):
    """Groups and pieces so small that a few rows are many of them."""
    monkeypatch.setattr(digest_index, "GROUP", 4)
    monkeypatch.setattr(digest_index, "SORTED_AT_ONCE", 16)
    monkeypatch.setattr(digest_index, "MOST_FILES", 3)


def test_entries_are_of_rows_with_a_digest_also_in_a_slice():
    column = digests("x", "a", None, "b").slice(1)
    entries = to_entries(column, 7)
    assert entries["row"].tolist() == [0, 2]
    assert entries["file"].tolist() == [7, 7]
    halves = [column[row].as_py() for row in (0, 2)]
    assert [int(each["high"]).to_bytes(8, "big") + int(each["low"]).to_bytes(8, "big") for each in entries] == halves


def test_what_is_indexed_is_found_and_nothing_else(tmp_path, small):
    storage = Storage(str(tmp_path))
    files = {f"f{number}": [f"{number} {row}" for row in range(10)] + [None] for number in range(7)}
    index = output(storage, **files)()
    for path, contents in files.items():
        for row, content in enumerate(contents[:-1]):
            assert where(index, content) == {content: (path, row)}
    everything = [content for contents in files.values() for content in contents]
    random.Random(0).shuffle(everything)
    assert len(where(index, *everything, "new")) == 70
    assert where(index, "new", None) == {}
    assert all(is_index(path) for path in storage.list())


@given(st.lists(st.lists(st.integers(0, 40), max_size=9), min_size=1, max_size=8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_an_index_made_in_any_steps_finds_what_is_there(tmp_path_factory, files, seed):
    """Contents come in several files, and files come and go between the steps, as versions do."""
    chance = random.Random(seed)
    storage = Storage(str(tmp_path_factory.mktemp("out")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_index, "GROUP", 3)
        patch.setattr(digest_index, "SORTED_AT_ONCE", 5)
        patch.setattr(digest_index, "MOST_FILES", 2)
        there = {}
        for number, contents in enumerate(files):
            there[f"f{number}"] = contents
            if len(there) > 1 and chance.random() < 0.3:
                there.pop(chance.choice(list(there)))
            index = output(storage, **there)()
        for file in index.files().values():
            if file.path not in there:
                index.forget(file)
        for content in range(42):
            found = where(index, content)
            holding = {(path, row) for path, held in there.items() for row, each in enumerate(held) if each == content}
            assert set(found.values()) <= holding
            assert bool(found) == bool(holding)


def test_the_newest_file_that_knows_a_digest_decides(tmp_path):
    storage = Storage(str(tmp_path))
    output(storage, old=["a", "b"])()
    index = output(storage, old=["a", "b"], new=["c", "a"])()
    assert where(index, "a", "b") == {"a": ("new", 1), "b": ("old", 1)}
    (file,) = (each for each in index.files().values() if each.path == "new")
    index.forget(file)
    assert where(index, "a", "c") == {"a": ("old", 0)}


def test_a_file_that_was_made_again_is_indexed_again(tmp_path):
    storage = Storage(str(tmp_path))
    output(storage, f=["a"])()
    assert where(output(storage, f=["b"])(), "b") == {}
    assert where(output(storage, f=["b"])(changed={"f"}), "b") == {"b": ("f", 0)}


def test_equal_high_halves_on_both_sides_of_a_groups_edge_are_kept_apart(tmp_path, small):
    """One digest in so many rows that they fill groups, and others that share its first half."""
    storage = Storage(str(tmp_path))
    high = b"\x80" * 8
    column = pa.array([high + bytes([7, *bytes(7)])] * 9 + [high + bytes([number, *bytes(7)]) for number in range(6)],
                      pa.binary(16))  # fmt: skip
    index = DigestIndex(storage, "e")
    update_index(index, [IndexedFile("f")], lambda file: (file, [column]))
    for number in range(6):
        ((_, row),) = index.find(pa.array([high + bytes([number, *bytes(7)])], pa.binary(16))).values()
        assert row == 9 + number
    assert index.find(pa.array([high + bytes([9, *bytes(7)])], pa.binary(16))) == {}


def test_many_index_files_become_one_without_what_is_gone(tmp_path, small):
    storage = Storage(str(tmp_path))
    files = {}
    for number in range(4):
        files[f"f{number}"] = [f"{number} {row}" for row in range(30)]
        if number == 3:
            files.pop("f0")
        index = output(storage, **files)()
    assert len(index.paths) == 1
    assert index.rows == 90
    assert where(index, "0 3") == {}
    assert where(index, "1 3", "3 29") == {"1 3": ("f1", 3), "3 29": ("f3", 29)}
    assert storage.list() == index.paths
    entries = np.concatenate([index._files[0].group(number) for number in range(index._files[0].groups)])
    assert (entries == sort_entries(entries)).all()


def test_files_that_a_merged_one_replaces_do_not_count(tmp_path, small, monkeypatch):
    """As after a kill between the two."""
    storage = Storage(str(tmp_path))
    monkeypatch.setattr(Storage, "remove", lambda *_: None)
    files = {}
    for number in range(4):
        files[f"f{number}"] = [number]
        output(storage, **files)()
    monkeypatch.undo()
    assert len(storage.list()) == 5
    index = DigestIndex(storage, "e")
    assert len(index.paths) == 1
    output(storage, **files)()
    assert storage.list() == index.paths


@pytest.mark.parametrize("damage", [b"", b"no index at all", None])
def test_a_damaged_index_is_made_again(tmp_path, damage):
    storage = Storage(str(tmp_path))
    index = output(storage, f=["a"], g=["b"])()
    (path,) = index.paths
    storage.write(path, storage.read(path)[:-9] if damage is None else damage)
    with pytest.raises(Exception, match="no whole index"):
        IndexFile(storage, path)
    assert where(output(storage, f=["a"], g=["b"])(), "a", "b") == {"a": ("f", 0), "b": ("g", 0)}


def test_no_files_are_no_index(tmp_path):
    storage = Storage(str(tmp_path))
    index = output(storage)()
    assert index.find(digests("a")) == {}
    assert storage.list() == []
    index.merge(lambda _: True)
    assert storage.list() == []
