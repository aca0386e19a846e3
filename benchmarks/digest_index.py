"""What the index of 10^8 digests costs: seconds to build, bytes, memory, lookups a second; and one more row's share.

Embedding files of 4,096 rows with random digests are indexed as after a run, in a process of its own. Then shards are
looked up whose rows are all known and lie together, as after an append, or in any order, and shards of new rows. Last
comes a first embed stage of 8,192 questions: the share of its processor time that digests and index take.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa

from barycenter.infra.storage import Storage
from barycenter.infra.versions.digest_index import MOST_FILES, DigestIndex, IndexedFile
from benchmarks.harness import finish, in_new_process, median, minilm, note, shared, table

ROWS = int(os.environ.get("ROWS", str(10**8)))
SHARD = 4096
TEXTS = 8192
ROUNDS = 20


def digests(file: int) -> pa.Array:
    """Those of one embedding file, the same each time."""
    data = np.random.default_rng(file).bytes(16 * SHARD)
    return pa.Array.from_buffers(pa.binary(16), SHARD, [None, pa.py_buffer(data)])


def files(first: int, count: int) -> Iterator[tuple[IndexedFile, Sequence[pa.Array]]]:
    about = {"after": 0, "copied": 0, "duplicate": 0, "encoded": SHARD, "missing": 0, "rejected": 0}
    for number in range(first, first + count):
        path = f"embeddings/text/0123456789abcdef0123/{number:024x}.parquet"
        yield IndexedFile(path, rows=SHARD, about=about), [digests(number)]


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build(folder: str, rows: int) -> dict[str, float]:
    index = DigestIndex(Storage(folder), "e")
    began = time.perf_counter()
    for file in files(0, rows // SHARD):  # what the digests themselves take is no part of it
        del file
    made = time.perf_counter() - began
    began, cpu = time.perf_counter(), time.process_time()
    index.add(files(0, rows // SHARD))
    added = time.perf_counter() - began - made
    if len(index.paths) > MOST_FILES:
        index.merge(lambda _: True)
    seconds = time.perf_counter() - began - made
    size = sum(Storage(folder).sizes().values())
    return {
        "seconds": seconds, "of it sorting": added, "cpu_seconds": time.process_time() - cpu - made, "bytes": size,
        "bytes_per_row": size / rows, "megabytes": megabytes(),
    }  # fmt: skip


def look_up(folder: str, rows: int) -> dict[str, float]:
    before = megabytes()
    began = time.perf_counter()
    index = DigestIndex(Storage(folder), "e")
    opened = time.perf_counter() - began
    count = rows // SHARD
    chance = np.random.default_rng(0)
    figures: dict[str, list[float]] = {"together": [], "new": [], "any order": []}
    for _ in range(ROUNDS):
        shard = digests(int(chance.integers(count)))
        began = time.perf_counter()
        sample = shard.take(pa.array(np.arange(0, SHARD, SHARD // 16)))
        assert len(index.find(sample)) == len(sample)  # these lead to the file, whose rows are matched as a whole
        figures["together"].append(time.perf_counter() - began)
        new = digests(10**9 + int(chance.integers(10**9)))
        began = time.perf_counter()
        assert not index.find(new)
        figures["new"].append(time.perf_counter() - began)
        mixed = pa.array(
            [digests(int(n))[int(r)].as_py() for n, r in chance.integers(0, (count, SHARD), (256, 2))], pa.binary(16)
        )
        began = time.perf_counter()
        assert len(index.find(mixed)) == 256
        figures["any order"].append(time.perf_counter() - began)
    return {
        "open_seconds": opened,
        "ms_for_a_shard_that_lies_together": 1000 * median(figures["together"]),
        "ms_for_a_shard_of_new_rows": 1000 * median(figures["new"]),
        "lookups_per_s_of_new_rows": SHARD / median(figures["new"]),
        "lookups_per_s_in_any_order": 256 / median(figures["any order"]),
        "megabytes_more": megabytes() - before,
    }


def one_more(folder: str, rows: int) -> dict[str, float]:
    """A file more, as after a run that appended a row."""
    began = time.perf_counter()
    index = DigestIndex(Storage(folder), "e")
    index.add(files(rows // SHARD, 1))
    return {"seconds_for_one_file_more": time.perf_counter() - began}


def first_run(folder: str, rows: int) -> dict[str, float]:
    """The share of a first embed stage, with MiniLM, that digests and their index take: the seconds of their calls."""
    from barycenter.infra.job.models import Job
    from barycenter.tasks.embed import index, known_rows, stage, worker
    from barycenter.tasks.run.context import Run
    from barycenter.tasks.run.input_values import InputValues
    from barycenter.tasks.run.workers import THIS_PROCESS

    spent = [0.0]

    def timed(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return real(*args, **options)
            finally:
                spent[0] += time.thread_time() - began

        setattr(owner, name, call)

    for owner, name in (
        (InputValues, "_text_digests"), (InputValues, "seen"), (known_rows.KnownRows, "find"), (worker, "note"),
        (known_rows.KnownRows, "remember"), (stage, "current_index"), (index, "counts_of"),
    ):  # fmt: skip
        timed(owner, name)
    texts = Path(folder, "texts.jsonl")
    lines = Path(shared("data/banking77/banking_data/train.csv")).read_text().splitlines()[1 : rows + 1]
    texts.write_text("".join(json.dumps({"id": n, "text": line}) + "\n" for n, line in enumerate(lines)))
    text = {"kind": "text", "column": "text", "encoder": str(minilm())}
    corpus = {"path": str(texts), "key": "id", "rows_per_shard": 1024}
    job = {"corpus": corpus, "inputs": {"text": text}, "output": {"path": str(Path(folder, "first"))}}
    began = time.process_time()
    stage.embed_input(Run(Job.model_validate(job)), "text", THIS_PROCESS)
    whole = time.process_time() - began
    return {"first_run_rows": len(lines), "first_run_cpu_seconds": whole, "share_of_a_first_run": spent[0] / whole}


def main() -> None:
    figures: dict[str, Any] = {"rows": ROWS}
    with tempfile.TemporaryDirectory() as scratch:
        for call in ("build", "look_up", "one_more"):
            figures |= in_new_process("digest_index", f"{call}(sys.argv[1], int(sys.argv[2]))", scratch, ROWS)
            note(call, figures)
        figures |= in_new_process("digest_index", "first_run(sys.argv[1], int(sys.argv[2]))", scratch, TEXTS)
    table([figures])
    finish(figures)


if __name__ == "__main__":
    main()
