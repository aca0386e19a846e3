"""A bounded sample of a corpus: the first rows of some files, read as those of the whole corpus are."""

import gzip
import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.infra.corpus import open_sample, opening
from barycenter.infra.corpus.formats import lines, webdataset
from barycenter.infra.job.models import CorpusJob, LimitsJob
from tests.infra.corpus.helpers import jsonl, opened, read

ROWS = 40
RECORDS = [{"id": f"k{row}", "text": f"row {row},\nwith a line end"} for row in range(ROWS)]
CSV = "id,text\n" + "".join('{id},"{text}"\n'.format(**record) for record in RECORDS)


@pytest.fixture
def small(monkeypatch):
    """Every corpus is too large to be read whole: two files, of each three rows."""
    monkeypatch.setattr(opening, "_SMALL_BYTES", 0)
    monkeypatch.setattr(opening, "_SAMPLE_FILES", 2)
    monkeypatch.setattr(opening, "_SAMPLE_ROWS", 3)


def sampled(path, rows=2):
    return open_sample(CorpusJob(path=str(path), rows_per_shard=rows), LimitsJob())


def tar_of(rows):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for row in rows:
            for ending, content in (("txt", f"text {row}".encode()), ("cls", str(row % 3).encode())):
                member = tarfile.TarInfo(f"s{row:03d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.jsonl", jsonl(RECORDS), ["id", "text"]),
        ("a.csv", CSV, ["id", "text"]),
        ("a.tsv", CSV.replace("id,", "id\t").replace(',"', '\t"'), ["id", "text"]),
        ("a.jsonl.gz", gzip.compress(jsonl(RECORDS).encode()), ["id", "text"]),
        ("a.tar", tar_of(range(ROWS)), ["text", "cls"]),
    ],
)
@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_the_first_rows_of_a_file_are_those_of_the_whole(tmp_path, monkeypatch, small, name, content, columns, chunk):
    monkeypatch.setattr(lines, "_SAMPLE_CHUNK_BYTES", chunk)
    path = write(tmp_path / name, content)
    corpus, whole = sampled(path)
    assert (whole, [source.rows for source in corpus.sources]) == (False, [3])
    found, all_rows = read(corpus, columns, 2), read(opened(path, rows=2), columns, 2)
    assert found == {column: values[:3] for column, values in all_rows.items()}


def test_nothing_is_read_beyond_the_rows_that_are_asked_for(tmp_path, monkeypatch, small):
    monkeypatch.setattr(lines, "_SAMPLE_CHUNK_BYTES", 64)
    whole_file = gzip.compress(b"".join(b'{"id": "%032x"}\n' % (number * 2654435761) for number in range(20_000)))
    cut = write(tmp_path / "cut.jsonl.gz", whole_file[: len(whole_file) // 2])
    assert sampled(cut)[0].sources[0].rows == 3
    seen = []
    real = webdataset._named_members

    def named_members(*args):
        for member in real(*args):
            seen.append(member[0])
            yield member

    monkeypatch.setattr(webdataset, "_named_members", named_members)
    sampled(write(tmp_path / "a.tar", tar_of(range(ROWS))))
    assert max(seen) == "s003"


def test_files_are_spread_over_the_corpus(tmp_path, small):
    for number in range(5):
        write(tmp_path / f"part-{number}.jsonl", jsonl(RECORDS))
    corpus, _ = sampled(tmp_path)
    assert [source.relative for source in corpus.sources] == ["part-0.jsonl", "part-3.jsonl"]
    assert corpus.listing["files"]["taken"] == 5


def test_the_footer_of_a_parquet_file_counts_all_its_rows(tmp_path, small):
    pq.write_table(pa.table({"id": list(range(ROWS))}), tmp_path / "a.parquet")
    corpus, whole = sampled(tmp_path / "a.parquet")
    assert (whole, corpus.sources[0].rows) == (False, ROWS)


def test_a_small_corpus_is_read_whole(tmp_path):
    corpus, whole = sampled(write(tmp_path / "a.csv", CSV))
    assert (whole, corpus.sources[0].rows) == (True, ROWS)


def test_members_that_lie_scattered_are_found(tmp_path, small):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for ending in ("txt", "cls"):
            for row in range(2):
                member = tarfile.TarInfo(f"s{row}.{ending}")
                member.size = 1
                tar.addfile(member, io.BytesIO(b"7"))
        for row in range(2, 9):
            member = tarfile.TarInfo(f"s{row}.txt")
            member.size = 1
            tar.addfile(member, io.BytesIO(b"7"))
    corpus, _ = sampled(write(tmp_path / "a.tar", stream.getvalue()))
    assert read(corpus, ["txt", "cls"], 2) | {"": None} == {
        "": None, "txt": ["7", "7", "7"], "cls": ["7", "7", None], "__bad__": [None] * 3, "__misfits__": [None] * 3,
    }  # fmt: skip
