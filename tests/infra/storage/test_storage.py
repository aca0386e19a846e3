import errno
import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.storage import errors as _faults
from barycenter.infra.storage import local as _local
from barycenter.infra.storage import remote as _remote
from barycenter.infra.storage.storage import MissingFileError, Storage
from tests.chaos.faults import Flaky, serve


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow), "memory"])
def storage(request, tmp_path):
    if request.param == "local":
        return Storage(str(tmp_path / "out"))
    if request.param == "memory":
        return Storage(f"memory://{tmp_path.name}")
    return Storage(f"s3://{request.getfixturevalue('s3_bucket')}/out", request.getfixturevalue("s3_server"))


def test_what_is_written_is_read_listed_and_removed(storage):
    storage.write("a/b.txt", b"one")
    storage.write("a/b.txt", b"two")
    storage.write("a/c/d.bin", b"")
    assert storage.read("a/b.txt") == b"two"
    assert storage.list() == ["a/b.txt", "a/c/d.bin"]
    assert storage.list("a/c") == ["a/c/d.bin"]
    assert storage.list("nowhere") == []
    assert storage.sizes("a") == {"a/b.txt": 3, "a/c/d.bin": 0}
    assert storage.exists("a/b.txt")
    assert not storage.exists("a")
    assert not storage.exists("a/b")
    storage.remove(["a/b.txt", "a/c/d.bin", "never/was"])
    assert storage.list() == []


def test_a_prefix_is_a_folder_not_the_start_of_a_name(storage):
    storage.write("ab/x", b"1")
    storage.write("abc/x", b"1")
    assert storage.list("ab") == ["ab/x"]


def test_nothing_shows_when_a_writer_fails(storage):
    def fail():
        with storage.writing("half.parquet") as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    storage.write("other", b"")
    with pytest.raises(ZeroDivisionError):
        fail()
    assert storage.list() == ["other"]


def test_errors_of_the_caller_inside_a_write_stay_its_own(storage):
    def fail():
        with storage.writing("x"):
            Path("/nowhere/at/all").read_bytes()

    with pytest.raises(FileNotFoundError):
        fail()


def test_only_one_of_many_creators_wins(storage):
    storage.write("warm-up", b"")
    bodies = [f"body {number}".encode() for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda body: storage.create("commit", body), bodies))
    if storage.uri().startswith("memory"):
        assert any(won)
    else:
        assert sum(won) == 1
        assert storage.read("commit") == bodies[won.index(True)]
    assert storage.list() == ["commit", "warm-up"]
    assert not storage.create("commit", b"late")


def test_a_stream_seeks(storage):
    data = bytes(range(256)) * 9000
    storage.write("data", data)
    with storage.open("data") as stream:
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == data[-10:]
        stream.seek(300)
        assert stream.read(2_000_000) == data[300:2_000_300]
        assert stream.tell() == 2_000_300


def test_tables_round_trip_without_columns_from_folder_names(storage):
    table = pa.table({"a": list(range(10_000)), "b": ["x"] * 10_000})
    storage.write_table("label=3/part-0.parquet", table, compression="zstd", row_group_size=1000)
    assert storage.read_table("label=3/part-0.parquet").equals(table)
    assert storage.read_table("label=3/part-0.parquet", ["b"]).column_names == ["b"]
    metadata = storage.parquet_metadata("label=3/part-0.parquet")
    assert (metadata.num_rows, metadata.num_row_groups) == (10_000, 10)


def test_a_missing_and_a_damaged_file_are_one_line(storage):
    with pytest.raises(MissingFileError, match="no such file"):
        storage.read("absent")
    with pytest.raises(MissingFileError, match="no such file"):
        storage.parquet_metadata("absent.parquet")
    storage.write_table("cut.parquet", pa.table({"a": [1, 2]}))
    storage.write("cut.parquet", storage.read("cut.parquet")[:-7])
    with pytest.raises(RunError, match="not a whole Parquet file"):
        storage.read_table("cut.parquet")


def test_it_travels_by_pickle(storage):
    storage.write("x", b"1")
    twin = pickle.loads(pickle.dumps(storage))  # noqa: S301 - our own bytes
    assert twin == storage
    assert twin.read("x") == b"1"


@pytest.mark.parametrize("path", ["../up", "a/../../up", "/etc/passwd", "nul\0"])
def test_no_path_leaves_the_root(storage, path):
    with pytest.raises(RunError, match="outside the folder of the output"):
        storage.write(path, b"")


def test_credentials_in_a_uri_are_refused_and_not_repeated():
    with pytest.raises(JobError) as caught:
        Storage("s3://AKIA123:hush@bucket/x")
    assert "hush" not in str(caught.value)
    assert "AKIA123" not in str(caught.value)


def test_relative_roots_do_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = Storage("out")
    monkeypatch.chdir("/")
    storage.write("x", b"1")
    assert (tmp_path / "out" / "x").read_bytes() == b"1"
    assert Storage(f"file://{tmp_path}/out").read("x") == b"1"


def test_temporary_names_never_look_like_parquet(tmp_path):
    storage = Storage(str(tmp_path))
    with storage.writing("part-0.parquet"):
        (name,) = storage.list()
    assert storage.is_temporary(name)
    assert not name.endswith(".parquet")
    assert not storage.is_temporary("part-0.parquet")
    assert storage.list() == ["part-0.parquet"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_local.os, "fsync", full)
    storage = Storage(str(tmp_path))
    with pytest.raises(RunError, match=r"no space left on .*; free some and run again"):
        storage.write("a", b"1")
    with pytest.raises(RunError, match="no space left"):
        storage.create("a", b"1")
    assert storage.list() == []


def test_a_disk_that_fills_while_a_table_is_written_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda self, mode: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    with pytest.raises(RunError, match="no space left"):
        Storage(str(tmp_path)).write_table("t.parquet", pa.table({"a": [1, 2, 3]}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_refuses_is_one_line(tmp_path, monkeypatch, number):
    def refuse(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"read-only|permission denied"):
        Storage(str(tmp_path / "x")).write("a", b"1")


def test_a_file_where_a_folder_should_be_is_one_line(tmp_path):
    storage = Storage(str(tmp_path))
    storage.write("a", b"1")
    with pytest.raises(RunError, match="in the place of"):
        storage.write("a/b", b"1")
    storage.write("d/e", b"1")
    with pytest.raises(RunError, match="in the place of"):
        storage.write("d", b"1")


def test_a_missing_bucket_is_one_line(s3_server):
    storage = Storage("s3://no-such-bucket/x", s3_server)
    for act in (lambda: storage.write("a", b"1"), storage.list, lambda: storage.create("a", b"1")):
        with pytest.raises(RunError, match="s3://no-such-bucket: there is no such bucket"):
            act()


def test_large_objects_are_one_completed_multipart_upload(s3_bucket, s3_server, monkeypatch):
    monkeypatch.setattr(_remote, "_PART", 5 * 2**20)
    storage = Storage(f"s3://{s3_bucket}/out", s3_server)
    data = random.Random(0).randbytes(11 * 2**20)
    storage.write("big", data)
    assert storage.read("big") == data
    store = storage._store
    original, calls = store._call, []

    def fail_on_the_second_part(method, **arguments):
        calls.append(method)
        if method == "upload_part" and calls.count(method) == 2:
            raise ZeroDivisionError
        return original(method, **arguments)

    monkeypatch.setattr(store, "_call", fail_on_the_second_part)
    with pytest.raises(ZeroDivisionError):
        storage.write("half", data)
    assert calls[-1] == "abort_multipart_upload"
    assert not storage.exists("half")


def test_a_large_object_whose_completion_was_answered_into_the_void_is_there(s3_bucket, s3_server, monkeypatch):
    monkeypatch.setattr(_remote, "_PART", 5 * 2**20)
    storage = Storage(f"s3://{s3_bucket}/out", s3_server)
    fs = storage._store._fs
    original, calls = fs.call_s3, []

    def lose_the_first_answer(method, **arguments):
        calls.append(method)
        answer = original(method, **arguments)
        if method == "complete_multipart_upload" and calls.count(method) == 1:
            raise ConnectionResetError
        return answer

    monkeypatch.setattr(fs, "call_s3", lose_the_first_answer)
    data = random.Random(0).randbytes(6 * 2**20)
    storage.write("big", data)
    assert calls.count("complete_multipart_upload") == 2
    assert storage.read("big") == data
    assert storage.abandon_uploads() == 0


def test_what_failed_first_is_reported_when_giving_up_fails_too(s3_bucket, s3_server, monkeypatch):
    monkeypatch.setattr(_remote, "_PART", 5 * 2**20)
    storage = Storage(f"s3://{s3_bucket}/out", s3_server)
    original = storage._store._call

    def fail(method, **arguments):
        if method == "upload_part":
            raise ZeroDivisionError
        if method == "abort_multipart_upload":
            raise ConnectionResetError
        return original(method, **arguments)

    monkeypatch.setattr(storage._store, "_call", fail)
    with pytest.raises(ZeroDivisionError):
        storage.write("big", bytes(6 * 2**20))


def test_unfinished_multipart_uploads_are_given_up(s3_bucket, s3_server):
    storage = Storage(f"s3://{s3_bucket}/out", s3_server)
    storage._store._call("create_multipart_upload", Key="out/half")
    storage._store._call("create_multipart_upload", Key="elsewhere/half")
    assert storage.abandon_uploads() == 1
    assert storage.abandon_uploads() == 0


def test_an_upload_that_is_given_up_already_is_no_error(s3_bucket, s3_server, monkeypatch):
    """The first request was carried out and its answer lost; the server knows no such upload when it is asked again."""
    storage = Storage(f"s3://{s3_bucket}/out", s3_server)
    storage._store._call("create_multipart_upload", Key="out/half")
    storage._store._call("create_multipart_upload", Key="out/other")
    fs = storage._store._fs
    original, calls = fs.call_s3, []

    def lose_the_first_answer(method, **arguments):
        answer = original(method, **arguments)
        calls.append(method)
        if method == "abort_multipart_upload" and calls.count(method) == 1:
            raise ConnectionResetError
        return answer

    monkeypatch.setattr(fs, "call_s3", lose_the_first_answer)
    assert storage.abandon_uploads() == 2
    assert calls.count("abort_multipart_upload") == 2
    assert storage.abandon_uploads() == 0


def test_a_flaky_server_is_retried_without_loss(s3_bucket, s3_server):
    from moto.server import DomainDispatcherApplication, create_backend_app

    flaky = Flaky(DomainDispatcherApplication(create_backend_app), share=0.3, seed=5)
    server, url = serve(flaky)
    try:
        storage = Storage(f"s3://{s3_bucket}/out", url)
        bodies = {f"shard/{number}": f"body {number}".encode() * 50 for number in range(15)}
        for path, body in bodies.items():
            storage.write(path, body)
        assert {path: storage.read(path) for path in storage.list("shard")} == bodies
        assert storage.create("commit", b"mine")
        assert not storage.create("commit", b"theirs")
        assert flaky.faults > 5
    finally:
        server.shutdown()


def test_a_create_whose_answer_was_lost_is_recognized_as_ours(s3_bucket, s3_server):
    from moto.server import DomainDispatcherApplication, create_backend_app

    app = DomainDispatcherApplication(create_backend_app)
    lost = []

    def forgetful(environ, start_response):
        if environ["REQUEST_METHOD"] == "PUT" and not lost:
            lost.append(list(app(environ, lambda *a, **k: None)))
            start_response("500 Oops", [])
            return [b"<Error><Code>InternalError</Code></Error>"]
        return app(environ, start_response)

    server, url = serve(forgetful)
    try:
        assert Storage(f"s3://{s3_bucket}/out", url).create("commit", b"mine")
    finally:
        server.shutdown()
    assert lost


def test_a_server_that_stays_away_is_one_line(monkeypatch, s3_server):
    monkeypatch.setattr(_faults, "RETRY_SECONDS", 0.5)
    with pytest.raises(RunError, match="did not answer properly"):
        Storage("s3://bucket/x", "http://127.0.0.1:9").read("a")


def test_denied_access_is_one_line_without_credentials(s3_server):
    def deny(environ, start_response):
        start_response("403 Forbidden", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AccessDenied</Code><Message>user AKIAHUSH may not</Message></Error>"]

    server, url = serve(deny)
    try:
        with pytest.raises(RunError, match="access denied") as caught:
            Storage("s3://bucket/x", url).write("a", b"1")
    finally:
        server.shutdown()
    assert "AKIAHUSH" not in str(caught.value)


def test_transient_faults_are_reported_from_lasting_ones():
    assert _faults.is_transient(TimeoutError())
    assert _faults.is_transient(ConnectionResetError())
    assert not _faults.is_transient(FileNotFoundError())
    assert not _faults.is_transient(ValueError())
    tries = []

    def fail():
        tries.append(1)
        raise PermissionError

    with pytest.raises(PermissionError):
        _faults.retrying(fail)
    assert len(tries) == 1
