import base64
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from barycenter.fusion.errors import BadInputError, Reason
from barycenter.infra.corpus import Pictures


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    for name in ("a.png", "images/b.png", "sub/c.png", "sub/images/d.png", "sub/a.png", "../secret.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (root / "empty.png").touch()
    (root / "inside.png").symlink_to("images/b.png")
    (root / "leaving.png").symlink_to("../secret.png")
    (root / "broken.png").symlink_to("nowhere")
    (root / "loop.png").symlink_to("loop.png")
    (root / "out").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.png")
    return root


def reason(pictures: Pictures, value: object, folder: str = "") -> Reason:
    with pytest.raises(BadInputError) as caught:
        pictures.find(value, folder).read()
    return caught.value.reason


@pytest.mark.parametrize(
    ("value", "folder", "content"),
    [
        ("a.png", "", b"a.png"),
        ("b.png", "", b"images/b.png"),
        ("images/b.png", "", b"images/b.png"),
        ("inside.png", "", b"images/b.png"),
        ("c.png", "sub", b"sub/c.png"),
        ("d.png", "sub", b"sub/images/d.png"),
        ("a.png", "sub", b"sub/a.png"),
        ("../a.png", "sub", b"a.png"),
        ("{root}/a.png", "sub", b"a.png"),
        ("file://{root}/a.png", "", b"a.png"),
        (b"raw", "", b"raw"),
        ({"bytes": b"raw", "path": "a.png"}, "", b"raw"),
        ({"bytes": None, "path": "a.png"}, "", b"a.png"),
    ],
)
def test_where_pictures_are_found(corpus: Path, value: Any, folder: str, content: bytes) -> None:
    pictures: Pictures = pickle.loads(pickle.dumps(Pictures(str(corpus))))  # noqa: S301
    value = value.format(root=corpus) if isinstance(value, str) else value
    assert pictures.find(value, folder).read() == content


def test_an_object_of_json_lines_is_read_as_the_struct_that_it_writes_out(corpus: Path) -> None:
    pictures = Pictures(str(corpus))
    content = b"\x89PNG\r\n\x1a\n" + bytes(60)
    written = json.dumps({"bytes": base64.b64encode(content).decode(), "path": "a.png"})
    assert pictures.find(written).read() == content
    assert pictures.find({"path": written, "folder": ""}).read() == content
    assert pictures.find('{"bytes": null, "path": "c.png"}', "sub").read() == b"sub/c.png"
    assert reason(pictures, '{"bytes": null, "path": null}') is Reason.NULL
    assert reason(pictures, '{"name": "a.png"}') is Reason.FILE_MISSING
    assert reason(pictures, "{a.png") is Reason.FILE_MISSING


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Reason.NULL),
        ({"bytes": None, "path": None}, Reason.NULL),
        ("", Reason.EMPTY),
        (" ", Reason.EMPTY),
        (b"", Reason.EMPTY),
        ("empty.png", Reason.EMPTY),
        (3.5, Reason.NOT_AN_IMAGE),
        ("no.png", Reason.FILE_MISSING),
        ("a.png/b.png", Reason.FILE_MISSING),
        ("broken.png", Reason.FILE_MISSING),
        ("loop.png", Reason.FILE_MISSING),
        ("x." * 2500, Reason.FILE_MISSING),
        ("a\0b.png", Reason.FILE_MISSING),
        ("\udcff.png", Reason.FILE_MISSING),
        ("sub", Reason.NOT_A_FILE),
        ("pipe.png", Reason.NOT_A_FILE),
        ("../secret.png", Reason.OUTSIDE_CORPUS),
        ("../no-such.png", Reason.OUTSIDE_CORPUS),
        ("sub/../../secret.png", Reason.OUTSIDE_CORPUS),
        ("/etc/passwd", Reason.OUTSIDE_CORPUS),
        ("file:///etc/passwd", Reason.OUTSIDE_CORPUS),
        ("leaving.png", Reason.OUTSIDE_CORPUS),
        ("out/secret.png", Reason.OUTSIDE_CORPUS),
        ("s3://elsewhere/a.png", Reason.OUTSIDE_CORPUS),
        ("memory://a.png", Reason.OUTSIDE_CORPUS),
        ("http://example.org/a.png", Reason.HTTP_NOT_ALLOWED),
        ("https://example.org/a.png", Reason.HTTP_NOT_ALLOWED),
    ],
)
def test_what_is_wrong_has_a_fixed_word(corpus: Path, value: object, expected: Reason) -> None:
    assert reason(Pictures(str(corpus)), value) == expected


@pytest.mark.parametrize("value", [r"sub\c.png", r".\sub\c.png", r"images\b.png", r"sub\images/d.png"])
def test_backslashes_are_read_as_slashes(corpus: Path, value: str) -> None:
    assert Pictures(str(corpus)).find(value).read() == value.replace("\\", "/").removeprefix("./").encode()


def test_a_name_with_a_backslash_is_itself_first(corpus: Path) -> None:
    (corpus / r"sub\c.png").write_bytes(b"odd")
    assert Pictures(str(corpus)).find(r"sub\c.png").read() == b"odd"


@pytest.mark.parametrize(
    ("value", "expected", "words"),
    [
        (r"..\secret.png", Reason.OUTSIDE_CORPUS, "limits.outside_corpus: true"),
        (r"C:\data\a.png", Reason.FILE_MISSING, "is a Windows path"),
        (r"\\host\share\a.png", Reason.FILE_MISSING, "is a Windows path"),
        ("leaving.png", Reason.OUTSIDE_CORPUS, "links lead out of the corpus folder; limits.outside_corpus: true"),
        ("../secret.png", Reason.OUTSIDE_CORPUS, "limits.outside_corpus: true"),
        ("https://example.org/a.png", Reason.HTTP_NOT_ALLOWED, "limits.http: true"),
        (
            "https://user:pw@example.org/a.png",
            Reason.HTTP_ERROR,
            "https://***@example.org/a.png: URLs with a user",
        ),
        ("HTTPS://example.org/a.png", Reason.HTTP_NOT_ALLOWED, "limits.http: true"),
        ("no.png", Reason.FILE_MISSING, "no.png: neither no.png nor images/no.png"),
    ],
)
def test_the_detail_says_what_to_do(corpus: Path, value: str, expected: Reason, words: str) -> None:
    with pytest.raises(BadInputError) as caught:
        Pictures(str(corpus)).find(value).read()
    assert caught.value.reason == expected
    assert words in caught.value.detail


@pytest.mark.parametrize("name", ["empty.png", "gone.png", "pipe.png", "leaving.png", "sub/gone.png"])
def test_what_is_wrong_does_not_say_where_the_corpus_lies(corpus: Path, name: str) -> None:
    with pytest.raises(BadInputError) as caught:
        Pictures(str(corpus)).find(f"{corpus}/{name}", "sub")
    assert caught.value.detail.startswith(name)
    assert str(corpus) not in caught.value.detail


def test_a_folder_whose_name_only_begins_alike_is_outside(corpus: Path) -> None:
    neighbor = corpus.parent / "corpus-2"
    neighbor.mkdir()
    (neighbor / "a.png").write_bytes(b"x")
    assert reason(Pictures(str(corpus)), "../corpus-2/a.png") == Reason.OUTSIDE_CORPUS


def test_paths_may_leave_where_the_job_says_so(corpus: Path) -> None:
    pictures = Pictures(str(corpus), outside_corpus=True)
    for value in ("../secret.png", "leaving.png", "out/secret.png", str(corpus.parent / "secret.png")):
        assert pictures.find(value).read() == b"../secret.png"


def test_a_corpus_behind_a_link_is_inside_itself(corpus: Path) -> None:
    link = corpus.parent / "link"
    link.symlink_to(corpus)
    pictures = Pictures(str(link))
    assert pictures.find("a.png").read() == b"a.png"
    assert pictures.find(str(link / "a.png")).read() == b"a.png"


def test_size_and_stamp_tell_a_change(corpus: Path) -> None:
    pictures = Pictures(str(corpus))
    picture = pictures.find("a.png")
    assert (picture.size, picture.uri) == (5, str(corpus / "a.png"))
    os.utime(corpus / "a.png", ns=(0, 1))
    assert pictures.find("a.png").stamp == "1" != picture.stamp
    assert pictures.find(b"raw").stamp is None


def test_large_pictures_are_refused_unread(corpus: Path) -> None:
    pictures = Pictures(str(corpus), max_bytes=4)
    assert reason(pictures, "a.png") == Reason.TOO_LARGE
    assert reason(pictures, b"12345") == Reason.TOO_LARGE


def test_unreadable_files(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (corpus / "a.png").chmod(0)
    if os.access(corpus / "a.png", os.R_OK):

        def denied(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "read_bytes", denied)
    assert reason(Pictures(str(corpus)), "a.png") == Reason.NO_PERMISSION


def test_faults_of_the_disk_are_passed_on(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(OSError, match="Input/output error"):
        Pictures(str(corpus)).find("a.png").read()


class TestRemote:
    def test_s3(self, s3_server: str, s3_bucket: str) -> None:
        import s3fs

        store = s3fs.S3FileSystem(endpoint_url=s3_server, skip_instance_cache=True)
        for name in ("data/a.png", "data/images/b.png", "other/c.png"):
            store.pipe_file(f"{s3_bucket}/{name}", name.encode())
        root = f"s3://{s3_bucket}/data"
        pictures = Pictures(root, storage_options={"endpoint_url": s3_server})
        picture = pictures.find("a.png")
        assert (picture.read(), picture.size) == (b"data/a.png", 10)
        assert picture.uri == f"{root}/a.png"
        assert picture.stamp
        assert pictures.find("b.png").read() == b"data/images/b.png"
        assert pictures.find(f"{root}/a.png").read() == b"data/a.png"
        assert reason(pictures, "no.png") == Reason.FILE_MISSING
        assert reason(pictures, "images") == Reason.NOT_A_FILE
        for value in ("../other/c.png", f"s3://{s3_bucket}/other/c.png", f"{root}/../other/c.png", "/etc/passwd"):
            assert reason(pictures, value) == Reason.OUTSIDE_CORPUS
        anywhere = Pictures("/tmp", outside_corpus=True, storage_options={"endpoint_url": s3_server})
        assert anywhere.find(f"s3://{s3_bucket}/other/c.png").read() == b"other/c.png"
