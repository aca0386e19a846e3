import os
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from barycenter.fusion.encoders.base import DEFAULT_FORMATS
from barycenter.fusion.errors import BadInputError, JobError
from barycenter.infra.corpus import Corpus, Pictures, open_corpus
from barycenter.infra.corpus.formats.folder import PICTURE_SUFFIXES
from barycenter.infra.corpus.overlap import check_no_links_into_output, check_output_outside_corpus
from barycenter.infra.job.models import CorpusJob, LimitsJob
from tests.infra.corpus.helpers import jsonl, opened, read, refusal

NAMES = {
    "DSC_0001.JPG": None,
    "_DSC0002.JPG": None,
    "_DSC0002.txt": None,
    "_background/0001.jpg": None,
    "a/IMG_1.HEIC": None,
    "a/saved.jfif": None,
    "a/scan.JPE": None,
    "a/empty.png": None,
    "a/notes.md": "other_format",
    "a/loose.txt": "other_format",
    "Thumbs.db": "hidden",
    ".DS_Store": "hidden",
    "a/._DSC0001.JPG": "hidden",
    ".thumbs/x.jpg": "hidden",
    "_SUCCESS": "left_by_a_writer",
    "_temporary/0/x.jpg": "left_by_a_writer",
    "b/.part-0.parquet.crc": "left_by_a_writer",
}


def _write(root: Path, names: Any) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "empty" in name else b"x")


def _expected(names: dict[str, str | None]) -> dict[str, Any]:
    passed = [reason for reason in names.values() if reason is not None]
    counts = {reason: passed.count(reason) for reason in sorted(set(passed))}
    return {"files": {"taken": len(names) - len(passed), "passed_over": counts}}


def test_every_file_of_a_picture_folder_is_taken_or_counted(tmp_path: Path) -> None:
    _write(tmp_path / "photos", NAMES)
    corpus = opened(tmp_path / "photos")
    assert corpus.listing == _expected(NAMES)
    taken = [name for name, reason in NAMES.items() if reason is None and not name.endswith(".txt")]
    assert sorted(read(corpus, ["image"])[""]) == sorted(taken)


def test_two_hundred_files_of_every_kind_add_up(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    names = {f"d{number}/{name}" for number in range(11) for name in NAMES}
    _write(root, names)
    (root / "d0/unreadable.png").write_bytes(b"x")
    (root / "d0/unreadable.png").chmod(0)
    Path(os.fsdecode(os.fsencode(str(root)) + b"/d0/caf\xe9.png")).write_bytes(b"x")
    (root / "d0/link.png").symlink_to("DSC_0001.JPG")
    (root / "d0/broken.png").symlink_to("nowhere")
    (root / "d0/circle.png").symlink_to("circle.png")
    (root / "d0/again").symlink_to("../d1")
    os.mkfifo(root / "d0/pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(root)
        server.bind("socket.png")
        os.chdir(here)
    files = opened(root).listing["files"]
    per_folder = _expected(NAMES)["files"]
    assert files["taken"] == 11 * per_folder["taken"] + 2
    assert files["passed_over"] == {name: 11 * count for name, count in per_folder["passed_over"].items()} | {
        "name_not_utf8": 1, "broken_link": 2, "folder_seen_before": 1, "not_a_file": 2,
    }  # fmt: skip
    assert files["taken"] + sum(files["passed_over"].values()) == len(names) + 8


@pytest.mark.parametrize("where", ["folder", "pattern", "memory", "memory pattern"])
def test_folder_pattern_and_remote_listing_follow_one_rule(tmp_path: Path, where: str) -> None:
    import fsspec

    names = {
        "a.jsonl": None, "x=1/b.JSONL": None, "_year=2020/c.jsonl": None, "empty.jsonl": "empty",
        "_temporary/d.jsonl": "left_by_a_writer", "_SUCCESS": "left_by_a_writer", ".hidden.jsonl": "hidden",
        "_draft.jsonl": "underscore_name", "_old/e.jsonl": "underscore_name", "readme.md": "other_format",
    }  # fmt: skip
    content = {name: b"" if "empty" in name else b'{"a": 1}\n' for name in names}
    store = fsspec.filesystem("memory")
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
        store.pipe_file(f"/rule/{name}", data)
    paths = {
        "folder": tmp_path,
        "pattern": f"{tmp_path}/**/*",
        "memory": "memory://rule",
        "memory pattern": "memory://rule/**",
    }
    corpus = opened(str(paths[where]))
    store.rm("/rule", recursive=True)
    assert corpus.listing == _expected(names)


def test_a_pattern_may_ask_for_such_names(tmp_path: Path) -> None:
    _write_rows(tmp_path / "_a.jsonl")
    _write_rows(tmp_path / "b.jsonl")
    assert len(opened(f"{tmp_path}/_*.jsonl").sources) == 1
    assert "1 underscore_name" in refusal_of_only(tmp_path)


def refusal_of_only(folder: Path) -> str:
    (folder / "b.jsonl").unlink()
    return refusal(folder)


def _write_rows(path: Path, rows: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(jsonl({"a": row} for row in range(rows)))


def test_every_ending_of_the_allowed_formats_is_a_picture() -> None:
    Image.init()
    endings = {ending for ending, name in Image.registered_extensions().items() if name in DEFAULT_FORMATS}
    assert endings <= set(PICTURE_SUFFIXES)


def test_a_table_that_strayed_among_pictures_does_not_take_their_place(tmp_path: Path) -> None:
    _write(tmp_path, [f"{number}.png" for number in range(20)])
    _write_rows(tmp_path / "backup.jsonl", 5)
    said = refusal(tmp_path)
    assert "20 pictures and 1 table (backup.jsonl)" in said
    assert "move it out" in said
    (tmp_path / "backup.jsonl").write_text(jsonl([{"photo": {"path": "x/3.png"}}]))
    assert opened(tmp_path).listing == {"files": {"taken": 1, "passed_over": {"picture_beside_table": 20}}}


def test_a_logo_beside_a_table_is_counted(tmp_path: Path) -> None:
    _write(tmp_path, ["logo.png"])
    _write_rows(tmp_path / "rows.jsonl", 20)
    assert opened(tmp_path).listing["files"]["passed_over"] == {"picture_beside_table": 1}


@pytest.mark.parametrize("name", ["a[1].jsonl", "b?.jsonl", "c*.jsonl"])
def test_wildcards_in_a_name_that_is_there_are_the_name(s3_server: str, s3_bucket: str, name: str) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=s3_server)
    for key in (f"p[1]*/{name}", "p1x/a1.jsonl"):
        client.put_object(Bucket=s3_bucket, Key=key, Body=b'{"a": 1}\n')
    for path in (f"s3://{s3_bucket}/p[1]*/{name}", f"s3://{s3_bucket}/p[1]*"):
        corpus = opened(path, endpoint_url=s3_server)
        assert read(corpus, ["a"])["a"] == [1]
        assert [source.uri for source in corpus.sources] == [f"s3://{s3_bucket}/p[1]*/{name}"]


def test_endings_in_capitals(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "A.JSONL.GZ").write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert read(opened(tmp_path), ["a"])["a"] == [1]


def _snapshot(tmp_path: Path, blobs: str) -> Path:
    (tmp_path / "repo" / blobs).mkdir(parents=True)
    folder = tmp_path / "repo/snapshots/abc/train"
    folder.mkdir(parents=True)
    for number in range(3):
        (tmp_path / "repo" / blobs / f"b{number}").write_bytes(b"x")
        (folder / f"{number}.png").symlink_to(f"../../../{blobs}/b{number}")
    return folder.parent


def test_links_of_the_hugging_face_cache_are_inside(tmp_path: Path) -> None:
    root = _snapshot(tmp_path, "blobs")
    values = read(opened(root), ["image"])["image"]
    assert [Pictures(str(root)).find(value).read() for value in values] == [b"x"] * 3
    (tmp_path / "repo/secret").write_bytes(b"s")
    (root / "train/0.png").unlink()
    (root / "train/0.png").symlink_to("../../../secret")
    with pytest.raises(BadInputError, match="outside_corpus"):
        Pictures(str(root)).find("train/0.png")


def test_pictures_that_are_all_links_out_are_refused_by_the_key_that_allows_them(tmp_path: Path) -> None:
    root = _snapshot(tmp_path, "store")
    assert refusal(root).startswith("limits.outside_corpus: all 3 pictures")
    allowed = open_corpus(CorpusJob(path=str(root)), LimitsJob(outside_corpus=True))
    assert sum(source.rows for source in allowed.sources) == 3


@pytest.mark.parametrize(
    ("corpus", "output", "refused"),
    [
        ("/c/data", "/c/data/out", True),
        ("/c/data", "/c/data", True),
        ("/c/data", "/c/data2", False),
        ("/c/data/rows.csv", "/c/data/out", False),
        ("/c/data/*.parquet", "/c/data/out", False),
        ("/c/data/*/*/*.parquet", "/c/data/out", True),
        ("/c/data/t*/*.parquet", "/c/data/out", False),
        ("/c/data/**/*.parquet", "/c/data/out", True),
        ("s3://b/data", "s3://b/data/out", True),
        ("s3://b/data/", "s3://b/data/out/", True),
        ("s3://b/data", "s3://b/data-out", False),
        ("memory://b/**", "memory://b/out", True),
        ("/b/data", "s3://b/data/out", False),
        ("file:///c/data", "/c/data/out", True),
    ],
)
def test_an_output_where_the_corpus_is_read_is_refused(corpus: str, output: str, refused: bool) -> None:
    if refused:
        with pytest.raises(JobError, match=r"^output.path: "):
            check_output_outside_corpus(corpus, output)
    else:
        check_output_outside_corpus(corpus, output)


def test_links_do_not_hide_an_output_in_the_corpus(tmp_path: Path) -> None:
    _write_rows(tmp_path / "data/a.jsonl")
    (tmp_path / "alias").symlink_to("data")
    with pytest.raises(JobError, match=r"^output.path: "):
        check_output_outside_corpus(str(tmp_path / "data"), str(tmp_path / "alias/out"))
    _write_rows(tmp_path / "out/features/b.jsonl")
    (tmp_path / "data/linked").symlink_to("../out")
    corpus: Corpus = opened(tmp_path / "data")
    with pytest.raises(JobError, match="is a link into"):
        check_no_links_into_output(str(tmp_path / "data"), corpus.sources, str(tmp_path / "out"))
