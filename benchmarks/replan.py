"""What a rerun costs whose shards are all done: 10,000 shards planned and none left, in seconds and megabytes.

A process of its own opens the corpus, cuts it into shards, describes the encoders and lists what is there, as every run
does before it starts anything. Beside it stands what handing out a shard costs: the dispatch loop over as many units of
a worker that does nothing.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.infra.job.models import Job
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.planning.plan import describe_plan, prepare
from barycenter.tasks.run.identities import embedding_ids
from benchmarks.harness import finish, in_new_process, median, note, table

SHARDS, FILES, ROUNDS = 10_000, 10, 3


def job(folder: Path) -> Job:
    inputs = {
        "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"},
        "vector": {"kind": "vector", "column": "vector"},
    }
    corpus = {"path": str(folder / "rows"), "key": "id", "rows_per_shard": 100}
    return Job.model_validate({"corpus": corpus, "inputs": inputs, "output": {"path": str(folder / "out")}})


def make(folder: Path) -> None:
    """The corpus, and an empty embedding file for every shard of both inputs."""
    (folder / "rows").mkdir()
    rows = SHARDS * 100 // FILES
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([0.5] * 2 * rows, pa.float32()), 2)
    for number in range(FILES):
        keys = [f"k{row}" for row in range(number * rows, (number + 1) * rows)]
        columns = {"id": keys, "text": ["a text"] * rows, "vector": vectors}
        pq.write_table(pa.table(columns), folder / "rows" / f"{number}.parquet", row_group_size=100_000)
    run = prepare(job(folder))
    assert len(run.shards) == SHARDS
    for name, embedding_id in embedding_ids(run).items():
        for shard in run.shards:
            path = folder / "out" / embedding_path(name, embedding_id, shard.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def plan(folder: Path) -> dict[str, float]:
    begun = time.perf_counter()
    left = describe_plan(prepare(job(folder)))
    seconds = time.perf_counter() - begun
    assert left["shards"] == SHARDS
    assert all(each["shards_left"] == 0 for each in left["inputs"].values())
    return {"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch))
        rounds = [in_new_process("replan", "plan(Path(sys.argv[1]))", scratch) for _ in range(ROUNDS)]
    figures = {name: median([each[name] for each in rounds]) for name in rounds[0]}
    figures["dispatch_ms_per_shard"] = in_new_process("scale", "dispatch_nothing(int(sys.argv[1]))", SHARDS)
    table([{"shards": SHARDS, "inputs": 2, "rows": SHARDS * 100, **figures}])
    note("claimed: under 10 s and 300 MB")
    finish({"shards": SHARDS, **figures})


if __name__ == "__main__":
    main()
