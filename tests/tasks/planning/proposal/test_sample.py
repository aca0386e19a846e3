"""A bounded look at a corpus: which rows are read, and what is said of them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.infra.corpus import opening
from barycenter.infra.job.models import CorpusJob, LimitsJob
from barycenter.tasks.planning.proposal.sample import read_sample
from tests.flows.corpora import write_lines

ROWS = 6_000


def sampled(path):
    return read_sample(CorpusJob(path=str(path)), LimitsJob(), {})


def test_rows_from_all_over_a_small_corpus(tmp_path):
    rows = [{"n": row, "empty": None if row % 2 else " ", "list": [row, None]} for row in range(ROWS)]
    sample = sampled(write_lines(tmp_path / "a.jsonl", rows))
    values = sample.columns["n"].values
    assert (sample.read, sample.whole, sample.rows) == (len(values), True, ROWS)
    assert 4_000 < len(values) < 4_100
    assert (values[0], values[-1], values == sorted(values)) == (0, ROWS - 1, True)
    assert sample.columns["empty"].values == []
    assert sample.columns["list"].flat[:2] == [(0, ""), (1, "")]
    assert sample.described() == f"1 file, 6,000 rows, {len(values):,} of them read"


@pytest.mark.parametrize(
    ("last", "answer"),
    [
        ("k6000", (True, "no value is empty or repeats in 6,000 rows")),
        ("k200", (False, "values repeat, such as 'k200'")),
        (None, (False, "empty in some rows")),
    ],
)
def test_a_key_is_looked_for_in_every_row_of_a_small_corpus(tmp_path, last, answer):
    """Also in those that are not in the sample."""
    rows = [{"id": f"k{row}"} for row in range(ROWS)]
    seen = set(sampled(write_lines(tmp_path / "a.jsonl", rows)).columns["id"].values)
    unseen = next(row for row in range(ROWS - 1, 300, -1) if f"k{row}" not in seen)
    rows[unseen]["id"] = last
    assert sampled(write_lines(tmp_path / "a.jsonl", rows)).is_unique("id") == answer


def test_a_large_corpus_says_how_much_of_it_was_read(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_SMALL_BYTES", 0)
    for part in range(20):
        write_lines(tmp_path / f"{part:02d}.jsonl", [{"id": f"{part}-{row}"} for row in range(100)])
    sample = sampled(tmp_path)
    assert 300 < sample.read <= 512
    assert sample.described() == f"20 files, {sample.read} rows of 10 of them read"
    assert sample.is_unique("id") == (True, f"no value is empty or repeats in {sample.read} rows read")


def test_bytes_are_read_of_the_first_rows_of_sources_only(tmp_path):
    for part in range(6):
        table = pa.table({"id": list(range(100)), "image": [b"%d" % row for row in range(100)]})
        pq.write_table(table, tmp_path / f"{part}.parquet")
    column = sampled(tmp_path).columns["image"]
    assert column.values == [b"%d" % row for row in range(8)] * 4
    assert column.rows == 32


def test_a_column_of_two_types_is_named(tmp_path):
    pq.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["x"], "text": ["b"]}), tmp_path / "b.parquet")
    sample = sampled(tmp_path)
    assert list(sample.columns) == ["text"]
    assert sample.unusable == ["column 'id' is int64 in a.parquet and string in b.parquet; give it one type"]
