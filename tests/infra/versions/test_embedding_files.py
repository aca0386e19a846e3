import hashlib
from random import Random

import numpy as np
import pyarrow as pa
import pytest

from barycenter.fusion.dataset.schema import vectors_to_array
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import (
    EMBEDDING_PARQUET,
    Repairs,
    done_shards,
    embedding_path,
    is_repair_note,
    merge_repair_notes,
    repairs,
)


def test_a_shard_is_done_when_its_file_is_there(tmp_path):
    storage = Storage(str(tmp_path))
    assert done_shards(storage, "text", "e1") == set()
    for shard in ("s1", "s2"):
        storage.write(embedding_path("text", "e1", shard), b"x")
    storage.write(embedding_path("text", "e10", "s3"), b"x")
    storage.write(embedding_path("image", "e1", "s4"), b"x")
    (tmp_path / "embeddings/text/e1/.s5.parquet.0123.tmp").write_bytes(b"half")
    assert done_shards(storage, "text", "e1") == {"s1", "s2"}
    assert done_shards(storage, "text", "e10") == {"s3"}
    assert [path for path in storage.list() if storage.is_temporary(path)] == [
        "embeddings/text/e1/.s5.parquet.0123.tmp"
    ]


def test_the_ledger_on_s3_is_paged(s3_bucket, s3_server):
    storage = Storage(f"s3://{s3_bucket}", s3_server)
    shards = {f"{number:04x}" for number in range(3)}
    for shard in shards:
        storage.write(embedding_path("text", "e", shard), b"x")
    store = storage._store
    asked = []
    original = store._call

    def small_pages(method, **arguments):
        asked.append(method)
        return original(method, MaxKeys=2, **arguments)

    store._call = small_pages
    assert done_shards(storage, "text", "e") == shards
    assert asked == ["list_objects_v2"] * 2


def test_ten_thousand_shards_are_one_listing(tmp_path):
    folder = tmp_path / "embeddings/text/e"
    folder.mkdir(parents=True)
    for number in range(10_000):
        (folder / f"{number:064x}.parquet").touch()
    done = done_shards(Storage(str(tmp_path)), "text", "e")
    assert len(done) == 10_000
    assert f"{9:064x}" in done


@pytest.fixture
def flawed(tmp_path):
    """Three embedding files that are about to be made again."""
    storage = Storage(str(tmp_path))
    paths = [embedding_path("text", "e", shard) for shard in ("one", "two", "three")]
    for path in paths:
        storage.write(path, b"flawed")
    return storage, paths


def notes(storage):
    return [path for path in storage.list("embeddings") if is_repair_note(path)]


def test_only_repairs_that_changed_something_count_and_a_kill_between_loses_none(flawed):
    storage, paths = flawed
    assert repairs(storage) == {}
    killed = Repairs(storage, paths)
    assert killed.paths == set(paths)
    assert repairs(storage) == {}
    for path in paths[1:]:
        storage.write(path, b"mended")
    assert repairs(storage).keys() == set(paths[1:])
    killed.settle()
    settled = repairs(storage)
    assert settled == {path: storage.sha256(path) for path in paths[1:]}
    Repairs(storage, paths[1:]).settle()
    assert repairs(storage) == settled
    back = Repairs(storage, paths[1:2])
    storage.write(paths[1], b"flawed")
    back.settle()
    assert repairs(storage).keys() == {paths[2]}


def test_a_repair_that_changed_nothing_leaves_no_note(flawed):
    storage, paths = flawed
    Repairs(storage, paths).settle()
    Repairs(storage, []).settle()
    assert notes(storage) == []


def test_no_run_settles_what_another_is_about_to_mend(flawed):
    storage, paths = flawed
    slow = Repairs(storage, paths[:2])
    quick = Repairs(storage, paths)
    storage.write(paths[2], b"mended")
    quick.settle()
    before = repairs(storage)
    assert before.keys() == {paths[2]}
    storage.write(paths[0], b"mended later")
    slow.settle()
    assert repairs(storage) == before | {paths[0]: storage.sha256(paths[0])}


def test_what_two_runs_mended_one_after_the_other_is_read(flawed):
    storage, paths = flawed
    one, other = Repairs(storage, paths[:1]), Repairs(storage, paths[:1])
    storage.write(paths[0], b"mended")
    one.settle()
    storage.write(paths[0], b"mended better")
    other.settle()
    assert repairs(storage) == {paths[0]: storage.sha256(paths[0])}
    Repairs(storage, paths[:1]).settle()
    assert repairs(storage) == {paths[0]: storage.sha256(paths[0])}
    assert len(notes(storage)) > 1
    merge_repair_notes(storage)
    assert len(notes(storage)) == 1
    assert repairs(storage) == {paths[0]: storage.sha256(paths[0])}


def test_garbage_collection_gathers_the_notes(flawed):
    storage, paths = flawed
    killed = Repairs(storage, paths[:1])
    for path in paths[1:]:
        finished = Repairs(storage, [path])
        storage.write(path, b"mended")
        finished.settle()
    changed = repairs(storage)
    assert changed.keys() == set(paths[1:])
    assert len(notes(storage)) == 3
    merge_repair_notes(storage)
    assert len(notes(storage)) == 2
    assert repairs(storage) == changed
    storage.write(paths[0], b"mended by a worker that outlived its run")
    assert paths[0] in killed
    assert repairs(storage).keys() == set(paths)
    before = notes(storage)
    merge_repair_notes(storage)
    assert notes(storage) == before


def test_what_a_run_noted_as_done_is_not_read_again(flawed, monkeypatch):
    storage, paths = flawed
    finished = Repairs(storage, paths[:2])
    for path in paths[:2]:
        storage.write(path, b"mended")
    finished.settle()
    Repairs(storage, paths[2:])
    storage.write(paths[2], b"mended by a run that was killed")
    before, read, real = repairs(storage), [], Storage.sha256
    monkeypatch.setattr(Storage, "sha256", lambda self, path: read.append(path) or real(self, path))
    assert repairs(storage) == before
    assert read == paths[2:]


def test_a_note_that_was_written_by_half_is_none(flawed):
    storage, paths = flawed
    Repairs(storage, paths[:1])
    (note,) = notes(storage)
    folder, _, name = note.rpartition("/")
    half = f"{folder}/.{name}.0123.tmp"
    storage.write(half, b'{"embeddings')
    assert storage.is_temporary(half)
    storage.write(paths[0], b"mended")
    assert repairs(storage).keys() == {paths[0]}


@pytest.mark.parametrize("seed", range(30))
def test_runs_that_mend_at_once_agree_on_what_is_stored(tmp_path, seed):
    """Two runs in any interleaving, each perhaps killed: what is changed is seen, with the content it has."""
    random = Random(seed)
    storage = Storage(str(tmp_path))
    paths = [embedding_path("text", "e", shard) for shard in "ab"]
    for path in paths:
        storage.write(path, b"first")
    steps = [iter(_mending(storage, random.sample(paths, random.randint(1, 2)), random)) for _ in range(3)]
    while steps:
        chosen = random.choice(steps)
        if next(chosen, "over") == "over" or random.random() < 0.1:
            steps.remove(chosen)
        now = {path: storage.sha256(path) for path in paths}
        first = hashlib.sha256(b"first").hexdigest()
        found = repairs(storage)
        assert {path for path in paths if now[path] != first} <= found.keys()
        assert found == {path: now[path] for path in found}


def _mending(storage, paths, random):
    run = Repairs(storage, paths)
    yield
    for path in paths:
        storage.write(path, random.choice([b"first", b"second", b"third"]))
        yield
    run.settle()


def test_embedding_files_are_compressed_each_column_in_its_way(tmp_path):
    vectors = np.random.default_rng(0).random((1000, 4), np.float32)
    keys = [str(row) for row in range(len(vectors))]
    columns = {"key": keys, "vector": vectors_to_array(vectors), "reason": ["too long"] * len(vectors)}
    path = embedding_path("text", "e", "s")
    Storage(str(tmp_path)).write_table(path, pa.table(columns), **EMBEDDING_PARQUET)
    group = Storage(str(tmp_path)).parquet_metadata(path).row_group(0)
    stored = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    assert {column.compression for column in stored.values()} == {"ZSTD"}
    assert "BYTE_STREAM_SPLIT" in stored["vector.list.element"].encodings
    assert [name for name, column in stored.items() if "RLE_DICTIONARY" in column.encodings] == ["reason"]
