import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.corpus import shard_id
from tests.infra.corpus.helpers import jsonl, opened, read, refusal

SUFFIXES = (
    ".parquet, .jsonl, .jsonl.gz, .jsonl.zst, .csv, .csv.gz, .csv.zst, .tsv, .tsv.gz, .tsv.zst, .tar "
    "and folders of pictures"
)


def write(path: Path, rows: int, start: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(jsonl({"id": number, "text": f"t{number}"} for number in range(start, start + rows)))
    return path


class TestShards:
    def test_no_shard_crosses_a_file_and_all_rows_are_there_once(self, tmp_path: Path) -> None:
        write(tmp_path / "a.jsonl", 10)
        write(tmp_path / "sub/b.jsonl", 3, 10)
        write(tmp_path / "c.jsonl", 0)
        shards = opened(tmp_path, rows=4).shards(4)
        assert [(shard.index, shard.source, shard.start, shard.stop) for shard in shards] == [
            (0, "a.jsonl", 0, 4),
            (1, "a.jsonl", 4, 8),
            (2, "a.jsonl", 8, 10),
            (3, "sub/b.jsonl", 0, 3),
        ]
        assert [shard.folder for shard in shards] == ["", "", "", "sub"]

    def test_another_size_than_the_jobs_reads_the_same_rows(self, tmp_path: Path) -> None:
        corpus = opened(write(tmp_path / "a.jsonl", 50), rows=7)
        assert read(corpus, ["id"], 7) == read(corpus, ["id"], 11) == read(corpus, ["id"], 7)

    def test_ids_do_not_depend_on_where_the_folder_lies(self, tmp_path: Path) -> None:
        first, second = write(tmp_path / "one/a.jsonl", 10), write(tmp_path / "two/a.jsonl", 10)
        os.utime(second, ns=(0, first.stat().st_mtime_ns))
        ids = [[shard.id for shard in opened(path.parent).shards(4)] for path in (first, second)]
        assert ids[0] == ids[1]
        assert len(set(ids[0])) == 3

    def test_a_changed_file_changes_its_own_shards_only(self, tmp_path: Path) -> None:
        write(tmp_path / "a.jsonl", 8)
        changed = write(tmp_path / "b.jsonl", 8)
        before = [shard.id for shard in opened(tmp_path).shards(4)]
        os.utime(changed, ns=(0, 1))
        after = [shard.id for shard in opened(tmp_path).shards(4)]
        assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False, False]

    @settings(max_examples=50)
    @given(
        st.tuples(st.text(max_size=5), *[st.integers(0, 9)] * 4),
        st.tuples(st.text(max_size=5), *[st.integers(0, 9)] * 4),
    )
    def test_ids_differ_where_anything_differs(self, a: tuple, b: tuple) -> None:  # type: ignore[type-arg]
        if "\0" not in a[0] + b[0]:
            assert (shard_id(*a) == shard_id(*b)) == (a == b)


class TestKeys:
    def test_without_a_key_column_file_and_row_number(self, tmp_path: Path) -> None:
        write(tmp_path / "a.jsonl", 3)
        write(tmp_path / "b.jsonl", 1)
        assert read(opened(tmp_path), ["id"], 2)[""] == ["a.jsonl#0", "a.jsonl#1", "a.jsonl#2", "b.jsonl#0"]

    def test_numbers_become_text_and_empty_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jsonl"
        path.write_text(jsonl([{"id": 7}, {"id": None}, {}]))
        assert read(opened(path, key="id"), [])[""] == ["7", None, None]
        (tmp_path / "a.csv").write_text("id,x\n007,a\n,b\n")
        assert read(opened(tmp_path / "a.csv", key="id"), ["x"])[""] == ["007", None]


class TestRequire:
    def refusal_of(self, tmp_path: Path, name: str) -> str:
        corpus = opened(write(tmp_path / "rows.jsonl", 2))
        with pytest.raises(JobError) as caught:
            corpus.check_columns({"inputs.text.column": ["text", name]})
        return str(caught.value)

    def test_a_missing_column_names_the_nearest(self, tmp_path: Path) -> None:
        assert (
            self.refusal_of(tmp_path, "txt")
            == "inputs.text.column: no column 'txt' in rows.jsonl; did you mean 'text'?"
        )

    def test_or_all_there_are(self, tmp_path: Path) -> None:
        assert self.refusal_of(tmp_path, "zzz") == "inputs.text.column: no column 'zzz' in rows.jsonl; it has id, text"

    def test_or_how_many_files_were_looked_at(self, tmp_path: Path) -> None:
        write(tmp_path / "a.jsonl", 1)
        write(tmp_path / "b.jsonl", 1)
        with pytest.raises(JobError, match=r"^corpus\.key: no column 'uid' in a\.jsonl or the 1 other sources; did"):
            opened(tmp_path).check_columns({"corpus.key": "uid"})


class TestListing:
    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("*.jsonl", ["a.jsonl", "b.jsonl"]),
            ("**/*.jsonl", ["a.jsonl", "b.jsonl", "deep/er/c.jsonl"]),
            ("[b]*.jsonl", ["b.jsonl"]),
            ("de*/*/*.jsonl", ["deep/er/c.jsonl"]),
            ("", ["a.jsonl", "b.jsonl", "deep/er/c.jsonl"]),
        ],
    )
    def test_patterns_and_folders(self, tmp_path: Path, pattern: str, found: list[str]) -> None:
        for name in ("b.jsonl", "a.jsonl", "deep/er/c.jsonl", ".hidden.jsonl", "_old/d.jsonl"):
            write(tmp_path / name, 1)
        (tmp_path / "README.md").touch()
        path = f"{tmp_path}/{pattern}".rstrip("/")
        listed = [source.relative for source in opened(path).sources if not source.relative.startswith("_")]
        assert listed == found

    def test_a_link_in_circles_ends(self, tmp_path: Path) -> None:
        write(tmp_path / "sub/a.jsonl", 1)
        (tmp_path / "sub/again").symlink_to(tmp_path)
        assert len(opened(tmp_path).sources) == 1

    def test_nothing_there(self, tmp_path: Path) -> None:
        missing = tmp_path / "no.jsonl"
        assert refusal(missing) == f"corpus.path: {missing}: there is no such file or folder; correct the path"
        assert (
            refusal(tmp_path / "a/b.jsonl")
            == f"corpus.path: {tmp_path}/a/b.jsonl: there is no such file or folder; correct the path"
        )
        assert refusal(f"{tmp_path}/*.jsonl") == f"corpus.path: no file matches {tmp_path}/*.jsonl; check the pattern"
        assert refusal(tmp_path) == (
            f"corpus.path: {tmp_path}: no corpus file in this folder; known formats are {SUFFIXES}"
        )

    def test_unreadable_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        closed = tmp_path / "closed"
        write(closed / "a.jsonl", 1)
        closed.chmod(0)
        if os.access(closed, os.R_OK):

            def denied(path: str) -> None:
                raise PermissionError(13, "Permission denied", path)

            monkeypatch.setattr("barycenter.infra.corpus.files.os.scandir", denied)
        try:
            assert refusal(closed) == f"corpus.path: {closed}: no permission to read it; change its owner or mode"
        finally:
            closed.chmod(0o700)

    def test_unknown_and_mixed_formats(self, tmp_path: Path) -> None:
        (tmp_path / "a.xlsx").write_text("x")
        assert refusal(tmp_path / "a.xlsx") == (
            f"corpus.path: {tmp_path}/a.xlsx: a.xlsx is not of a known format; known formats are {SUFFIXES}"
        )
        for name in ("a.png", "b.png"):
            (tmp_path / name).write_bytes(b"x")
        assert refusal(f"{tmp_path}/*.png").endswith(f"; for these pictures give their folder, {tmp_path}")
        write(tmp_path / "a.jsonl", 1)
        (tmp_path / "b.csv").write_text("id\n1\n")
        assert refusal(tmp_path) == (
            f"corpus.path: {tmp_path}: holds .jsonl and .csv files; give a pattern for one, e.g. {tmp_path}/*.jsonl"
        )

    def test_no_rows(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").touch()
        assert (
            refusal(tmp_path / "a.jsonl")
            == f"corpus.path: {tmp_path}/a.jsonl holds no rows; give a file or folder that has some"
        )
        (tmp_path / "a.csv").write_text("id,text\n")
        assert (
            refusal(tmp_path / "a.csv")
            == f"corpus.path: {tmp_path}/a.csv holds no rows; give a file or folder that has some"
        )

    def test_no_file_but_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.jsonl")
        assert refusal(tmp_path / "a.jsonl") == (
            f"corpus.path: {tmp_path}/a.jsonl is neither a file nor a folder; give one of them or a glob pattern"
        )

    def test_http_needs_its_switch(self) -> None:
        assert refusal("https://example.org/a.jsonl") == (
            "corpus.path: https://example.org/a.jsonl: set limits.http to true to read over http(s)"
        )

    def test_unknown_protocols(self) -> None:
        assert refusal("nope://a/b.jsonl") == "corpus.path: nope://a/b.jsonl: Protocol not known: nope"


class TestRemote:
    @pytest.fixture
    def rows(self, tmp_path: Path) -> Path:
        import pyarrow as pa

        write(tmp_path / "a.jsonl", 20)
        write(tmp_path / "sub/b.jsonl", 5, 20)
        pq.write_table(
            pa.table({"id": list(range(25)), "text": [f"t{n}" for n in range(25)]}),
            tmp_path / "c.parquet",
            row_group_size=4,
        )
        (tmp_path / "d.csv").write_text("id,text\n" + "".join(f"{n},t{n}\n" for n in range(25)))
        return tmp_path

    @pytest.mark.parametrize("pattern", ["**/*.jsonl", "c.parquet", "d.csv"])
    def test_s3_gives_the_same_rows_as_the_disk(self, rows: Path, s3_server: str, s3_bucket: str, pattern: str) -> None:
        import s3fs

        bucket = s3fs.S3FileSystem(endpoint_url=s3_server, skip_instance_cache=True)
        for file in rows.rglob("*.*"):
            bucket.put(str(file), f"{s3_bucket}/data/{file.relative_to(rows)}")
        remote = opened(f"s3://{s3_bucket}/data/{pattern}", key="id", rows=6, endpoint_url=s3_server)
        local = opened(f"{rows}/{pattern}", key="id", rows=6)
        assert remote.columns == local.columns
        assert read(remote, ["text"], 6) == read(local, ["text"], 6)
        assert [shard.source for shard in remote.shards(6)] == [shard.source for shard in local.shards(6)]

    def test_missing_buckets_and_keys(self, s3_server: str, s3_bucket: str) -> None:
        for uri in (f"s3://{s3_bucket}/no.jsonl", "s3://no-such-bucket/a.jsonl"):
            with pytest.raises(JobError) as caught:
                opened(uri, endpoint_url=s3_server)
            assert str(caught.value) == f"corpus.path: {uri}: there is no such file or folder; correct the path"
