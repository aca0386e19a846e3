"""Joining tables on the key, checked against DuckDB."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus import open_corpus
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.join.buckets import join_bucket, open_joined_corpus
from barycenter.infra.corpus.join.partition import Join, JoinTable, check_bucket_sizes, partition_unit, spill_path
from barycenter.infra.job.models import CorpusJob, LimitsJob
from barycenter.infra.storage import Storage
from tests.infra.corpus.helpers import jsonl, read

MB = 2**20


def opened(path, key, rows=4096):
    return open_corpus(CorpusJob(path=str(path), key=key, rows_per_shard=rows), LimitsJob())


def planned(base, own, keep=(), columns=("vec",), *, key="id", own_key="id", memory=64 * MB, rows=4096, paths=()):
    tables = [
        JoinTable(None, opened(base, key, rows), {name: name for name in keep}, frozenset()),
        JoinTable("x", opened(own, own_key, rows), {f"x.{name}": name for name in columns}, frozenset(paths)),
    ]
    return Join.plan(key, tables, CorpusJob(path=str(base), key=key, rows_per_shard=rows), memory)


def joined(join, storage):
    """The joined corpus, made in this process; and what was counted."""
    units = list(join.units())
    sizes = sum(partition_unit(join, storage, unit) for unit in units)
    check_bucket_sizes(join, sizes)
    spilled = [[spill_path(join, unit) for unit in units if unit.table == table] for table in range(len(join.tables))]
    counted = [join_bucket(join, storage, spilled, bucket) for bucket in range(join.buckets)]
    record = {"files": [part for part in counted if part["name"]]}
    job = CorpusJob(path="x", key=join.key, rows_per_shard=join.rows_per_shard)
    return open_joined_corpus(join, record, storage, job, Files()), counted


def write_pairs(folder: Path, keys: int, each: int, width: int, seed: int = 0) -> tuple[Path, Path]:
    """Two shuffled tables of ``keys`` keys, 5 % of them missing in either; the second has ``each`` rows a key."""
    rng = np.random.default_rng(seed)
    cut = keys // 20
    texts = rng.permutation(keys)[cut:]
    pictures = rng.permutation(np.repeat(rng.permutation(keys)[cut:], each))
    left, right = folder / "texts.parquet", folder / "pictures.parquet"
    pq.write_table(pa.table({"id": pa.array(texts).cast("string"), "n": texts * 2}), left, row_group_size=20_000)
    writer = None
    for start in range(0, len(pictures), 20_000):
        part = pictures[start : start + 20_000]
        flat = rng.standard_normal((len(part), width), np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), width)
        table = pa.table({"picture_of": part, "vec": vectors, "row": np.arange(start, start + len(part))})
        writer = writer or pq.ParquetWriter(right, table.schema)
        writer.write_table(table)
    writer.close()
    return left, right


def check_against_duckdb(folder: Path, corpus_root: str, keys: int, each: int) -> None:
    """Keys, presence, number and order of the vectors of every key, and the vectors themselves by their sums."""
    query = f"""
        with expected as (
            select coalesce(t.id, p.id) as id, t.n, p.rows, p.total from '{folder}/texts.parquet' t full outer join (
                select picture_of::varchar as id, list(row order by row) as rows,
                    list(list_sum(vec) order by row) as total
                from '{folder}/pictures.parquet' group by 1
            ) p on t.id = p.id
        ), found as (
            select id, n, "x.row" as rows, list_transform("x.vec", lambda v: list_sum(v)) as total
            from '{corpus_root}/*.parquet'
        )
        select count(*), count(e.n), count(e.rows), count(*) filter (
            f.id is null or e.id is null or e.n is distinct from f.n or e.rows is distinct from f.rows
            or e.total is distinct from f.total
        ) from expected e full outer join found f on e.id = f.id
    """
    [(rows, texts, pictures, wrong)] = duckdb.sql(query).fetchall()
    assert wrong == 0
    assert texts == pictures == keys - keys // 20
    assert texts < rows < keys + 1


@pytest.mark.parametrize("memory", [64 * 1024, 64 * MB])
def test_rows_of_two_shuffled_tables_come_together(tmp_path, memory):
    left, right = write_pairs(tmp_path, keys=2000, each=3, width=16)
    join = planned(left, right, ["n"], ("vec", "row"), own_key="picture_of", memory=memory, rows=1000)
    corpus, counted = joined(join, Storage(str(tmp_path / "out")))
    assert join.buckets == (4 if memory == 64 * MB else 64)
    check_against_duckdb(tmp_path, corpus.root, 2000, 3)
    assert sum(part["rows"] for part in counted) == sum(source.rows for source in corpus.sources)
    both = sum(part["x"]["both"] for part in counted)
    assert sum(part["x"]["table_only"] for part in counted) + both == 1900
    keys = read(corpus, ["n"])[""]
    assert len(set(keys)) == len(keys)


def write_three(folder: Path) -> tuple[Path, Path]:
    base, own = folder / "base.jsonl", folder / "own.jsonl"
    base.write_text(jsonl([{"id": "b", "n": 1}, {"id": "a", "n": 2}, {"id": None, "n": 3}, {"id": "a", "n": 4}]))
    own.write_text(
        jsonl([{"id": "c", "vec": "c1"}, {"id": "a", "vec": "a1"}, {"id": None, "vec": "?"}, {"id": "a", "vec": "a2"}])
        + "not json\n"
    )
    return base, own


def test_gaps_repeated_and_null_keys_and_unreadable_rows_stay_rows(tmp_path):
    base, own = write_three(tmp_path)
    corpus, _ = joined(planned(base, own, ["n"]), Storage(str(tmp_path / "out")))
    rows = read(corpus, ["n", "x.vec"])
    found = set(zip(rows["n"], map(str, rows["x.vec"]), rows["__bad__"], strict=True))
    problem = next(counted for counted in rows["__bad__"] if counted)
    assert problem.startswith("not JSON")
    assert found == {
        (2, "['a1', 'a2']", None), (4, "['a1', 'a2']", None), (1, "None", None), (None, "['c1']", None),
        (3, "None", None), (None, "['?']", None), (None, "[None]", problem),
    }  # fmt: skip
    assert rows[""].count(None) == 2


def test_a_value_that_does_not_fit_in_another_table_is_a_misfit_of_its_input(tmp_path):
    keys = ["a", "a", "b", "b", "c", "d"]
    words = [b"one", b"\xff", b"\xfe", b"\xff", b"\xff", b"two"]
    other = pa.table({"id": keys, "word": pa.array(words, pa.binary()).view(pa.string())})
    pq.write_table(other, tmp_path / "other.parquet")
    (tmp_path / "rows.jsonl").write_text(jsonl([{"id": key, "n": 1} for key in "abcde"]))
    own = tmp_path / "other.parquet"
    join = planned(tmp_path / "rows.jsonl", own, ["n"], ["word"], rows=4)
    corpus, _ = joined(join, Storage(str(tmp_path / "out")))
    values = read(corpus, ["x.word"], 4)
    rows = dict(zip(values[""], zip(values["x.word"], values["__misfits__"], strict=True), strict=True))
    wrong = json.dumps({"x.word": "not UTF-8 text"})
    assert rows == {
        "a": (["one", None], None),
        "b": ([None, None], wrong),
        "c": ([None], wrong),
        "d": (["two"], None),
        "e": (None, None),
    }


def test_a_changed_table_changes_only_the_buckets_it_touches(tmp_path):
    left, right = write_pairs(tmp_path, keys=2000, each=1, width=4)
    storage = Storage(str(tmp_path / "out"))
    before, _ = joined(planned(left, right, ["n"], own_key="picture_of", rows=200), storage)
    table = pq.read_table(left)
    pq.write_table(table.slice(1), left)
    after, _ = joined(planned(left, right, ["n"], own_key="picture_of", rows=200), storage)
    old, new = ({shard.id for shard in corpus.shards(200)} for corpus in (before, after))
    assert before.root != after.root
    names = [{source.relative for source in corpus.sources} for corpus in (before, after)]
    assert len(names[0]) == 8
    assert len(names[0] & names[1]) == 7
    assert len(new - old) <= 2


def test_pictures_keep_the_folder_they_start_from(tmp_path):
    (tmp_path / "own" / "deep").mkdir(parents=True)
    base, _ = write_three(tmp_path)
    (tmp_path / "own" / "deep" / "own.jsonl").write_text(jsonl([{"id": "a", "file": "1.png"}]))
    join = planned(base, tmp_path / "own", ["n"], ("file",), paths=["x.file"])
    corpus, _ = joined(join, Storage(str(tmp_path / "out")))
    found = [value for value in read(corpus, ["x.file"])["x.file"] if value]
    assert found[0] == [{"path": "1.png", "folder": "deep"}]


def test_a_key_of_very_many_rows_is_refused():
    with pytest.raises(RunError, match=r"limits.join_memory_mb"):
        check_bucket_sizes(type("Join", (), {"memory": MB})(), np.array([0, 2 * MB]))


_LARGE = """
import json, resource, sys
from pathlib import Path
from barycenter.infra.storage import Storage
from tests.infra.corpus.join.test_partition import joined, planned
folder, memory = Path(sys.argv[1]), int(sys.argv[2])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
tables = folder / "texts.parquet", folder / "pictures.parquet"
join = planned(*tables, ["n"], ("vec", "row"), own_key="picture_of", memory=memory << 20)
corpus, _ = joined(join, Storage(str(folder / "out")))
print(json.dumps({"root": corpus.root, "buckets": join.buckets, "before": before, "peak": peak()}))
"""


def test_memory_stays_below_the_size_of_the_tables(tmp_path):
    keys, each, width = 40_000, 3, 256
    write_pairs(tmp_path, keys, each, width)
    data = (keys - keys // 20) * each * width * 4 / MB
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, str(tmp_path), "16"], check=True, capture_output=True, text=True
    )
    counted = json.loads(done.stdout)
    print(f"{data:.0f} MB of vectors joined in {counted['buckets']} buckets; peak RSS {counted['peak']} MB")
    check_against_duckdb(tmp_path, counted["root"], keys, each)
    assert counted["peak"] - counted["before"] < data / 2
