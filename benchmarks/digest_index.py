"""What the index of 10^8 digests costs: seconds to build, bytes, memory, lookups a second; and one more row's share.

Embedding files of 4,096 rows with random digests are indexed as after a run, in a process of its own. Then shards are
looked up whose rows are all known and lie together, as after an append, or in any order, and shards of new rows.
"""

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
from benchmarks.harness import finish, in_new_process, median, note, table

ROWS = int(os.environ.get("ROWS", str(10**8)))
SHARD = 4096
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
    began, cpu = time.perf_counter(), time.process_time()
    made = 0.0
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


def main() -> None:
    figures: dict[str, Any] = {"rows": ROWS}
    with tempfile.TemporaryDirectory() as scratch:
        for call in ("build", "look_up", "one_more"):
            figures |= in_new_process("digest_index", f"{call}(sys.argv[1], int(sys.argv[2]))", scratch, ROWS)
            note(call, figures)
    table([figures])
    finish(figures)


if __name__ == "__main__":
    main()
