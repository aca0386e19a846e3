"""Two shuffled tables of 200,000 keys, 5 % missing in either, three vectors a key, joined in little memory.

The join is the one that a job runs (``barycenter.infra.corpus.join.partition``), here in one process with
``limits.join_memory_mb`` 64. Its rows are checked against DuckDB: keys, gaps, order and number of the vectors, and the
sum of each.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import finish, in_new_process, missing, note, versions

KEYS, EACH, WIDTH = 200_000, 3, 256
MEMORY_MB = 64
PART = 20_000


def write_tables(folder: Path) -> float:
    """Writes both tables; MiB of the vectors."""
    rng = np.random.default_rng(0)
    cut = KEYS // 20
    texts = rng.permutation(KEYS)[cut:]
    pictures = rng.permutation(np.repeat(rng.permutation(KEYS)[cut:], EACH))
    pq.write_table(pa.table({"id": pa.array(texts).cast("string"), "n": texts * 2}), folder / "texts.parquet")
    writer = None
    for start in range(0, len(pictures), PART):
        of = pictures[start : start + PART]
        flat = rng.standard_normal((len(of), WIDTH), np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), WIDTH)
        part = pa.table({"picture_of": of, "vec": vectors, "row": np.arange(start, start + len(of))})
        writer = writer or pq.ParquetWriter(folder / "pictures.parquet", part.schema)
        writer.write_table(part)
    assert writer is not None
    writer.close()
    return len(pictures) * WIDTH * 4 / 2**20


def join(folder: Path) -> dict[str, Any]:
    """Joins the tables; where they are, seconds, and peak memory before and after."""
    from barycenter.infra.corpus import open_corpus
    from barycenter.infra.corpus.join.buckets import join_bucket
    from barycenter.infra.corpus.join.partition import Join, JoinTable, check_bucket_sizes, partition_unit, spill_path
    from barycenter.infra.job.models import CorpusJob, LimitsJob
    from barycenter.infra.storage import Storage

    def opened(name: str, key: str) -> Any:
        return open_corpus(CorpusJob(path=str(folder / name), key=key), LimitsJob())

    before = peak_mb()
    start = time.perf_counter()
    own = JoinTable("x", opened("pictures.parquet", "picture_of"), {"x.vec": "vec", "x.row": "row"}, frozenset())
    tables = [JoinTable(None, opened("texts.parquet", "id"), {"n": "n"}, frozenset()), own]
    plan = Join.plan("id", tables, CorpusJob(path=str(folder), key="id"), MEMORY_MB << 20)
    storage = Storage(str(folder / "out"))
    units = list(plan.units())
    check_bucket_sizes(plan, np.sum([partition_unit(plan, storage, unit) for unit in units], axis=0))
    spilled = [[spill_path(plan, unit) for unit in units if unit.table == table] for table in (0, 1)]
    rows = sum(join_bucket(plan, storage, spilled, bucket)["rows"] for bucket in range(plan.buckets))
    seconds = time.perf_counter() - start
    return {
        "root": storage.uri(plan.folder), "rows": rows, "buckets": plan.buckets, "seconds": seconds,
        "before_mb": before, "peak_mb": peak_mb(),
    }  # fmt: skip


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def expected(folder: Path) -> str:
    return f"""
        select coalesce(t.id, p.id) as id, t.n, p.rows, p.total
        from '{folder}/texts.parquet' t full outer join (
            select picture_of::varchar as id, list(row order by row) as rows, list(list_sum(vec) order by row) as total
            from '{folder}/pictures.parquet' group by 1
        ) p on t.id = p.id
    """


def compared(folder: Path, root: str) -> dict[str, int]:
    query = f"""
        with expected as ({expected(folder)}), found as (
            select id, n, "x.row" as rows, list_transform("x.vec", lambda v: list_sum(v)) as total
            from '{root}/*.parquet'
        )
        select count(*), count(e.n), count(e.rows), count(*) filter (
            f.id is null or e.id is null or e.n is distinct from f.n or e.rows is distinct from f.rows
            or e.total is distinct from f.total
        ) from expected e full outer join found f on e.id = f.id
    """
    [(rows, texts, pictures, wrong)] = duckdb.sql(query).fetchall()
    return {"rows": rows, "with_text": texts, "with_pictures": pictures, "wrong": wrong}


def main() -> None:
    note("join:", versions("duckdb", "pyarrow", "numpy"))
    with tempfile.TemporaryDirectory(prefix="join-") as name:
        folder = Path(name)
        data = write_tables(folder)
        ours = in_new_process("join", "join(Path(sys.argv[1]))", name)
        checked = compared(folder, ours["root"])
    note(f"{data:.0f} MiB of vectors; {ours}")
    note(f"against DuckDB: {checked}")
    if checked["wrong"] or checked["rows"] != ours["rows"]:
        missing(f"{checked['wrong']} rows differ from DuckDB's")
    finish(
        {
            "data_mb": round(data),
            "peak_rss_mb": ours["peak_mb"],
            "peak_rss_before_mb": ours["before_mb"],
            "join_memory_mb": MEMORY_MB,
            "rows": ours["rows"],
            "rows_per_s": round((KEYS - KEYS // 20) * (1 + EACH) / ours["seconds"]),
            "wrong": checked["wrong"],
        }
    )


if __name__ == "__main__":
    main()
