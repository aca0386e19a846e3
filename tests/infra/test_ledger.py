from infra.ledger import REPAIRS, done_shards, embedding_path, intend_repairs, repairs, strays
from infra.storage import Storage


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
    assert strays(storage) == ["embeddings/text/e1/.s5.parquet.0123.tmp"]


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


def test_only_repairs_that_changed_something_count_and_a_kill_between_loses_none(tmp_path):
    storage = Storage(str(tmp_path))
    paths = [embedding_path("text", "e", shard) for shard in ("same", "mended", "mended before the kill")]
    for path in paths:
        storage.write(path, b"flawed")
    assert repairs(storage) == {}
    intend_repairs(storage, paths)
    for path in paths[1:]:
        storage.write(path, b"mended")
    settled = repairs(storage)
    assert settled.keys() == set(paths[1:])
    assert settled == repairs(storage)
    intend_repairs(storage, paths[1:])
    assert repairs(storage) == settled
    intend_repairs(storage, paths[1:2])
    storage.write(paths[1], b"flawed")
    assert repairs(storage).keys() == {paths[2]}
    assert storage.exists(REPAIRS)
