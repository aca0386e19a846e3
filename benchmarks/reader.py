"""Batches a second that reach a training loop: FusedDataset beside a bare scan and four other readers.

200,000 rows of 256 floats and a label, in four files as the fuse stage writes them, in the page cache. Every contender
delivers all rows as torch tensors in batches of 1024, in order and shuffled, but for the ceiling: pyarrow's scan of
the same columns of the same files, that hands over its own record batches untouched. Like is set against like:
FusedDataset, Ray Data and the streaming Hugging Face reader shuffle in a buffer of 65,536 rows. Lance and Hugging
Face's memory-mapped reader follow a permutation of all rows, and so does FusedDataset with a buffer of all rows.
Conversion into Lance's and Hugging Face's own formats is not counted. The last line of stdout is JSON: FusedDataset's
speed as a multiple of each, by order; below 1 the other reader is faster.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import ROOT, finish, interleaved, median, note, table, versions, with_peers

ROWS, DIM, FILES, BATCH, BUFFER, ROUNDS = 200_000, 256, 4, 1024, 65_536, 5
_PEERS = ("pylance", "datasets", "ray[data]")
LIKE_AGAINST_LIKE = {
    "in order": (
        "FusedDataset sequential",
        {
            "vs_scan": "scan",
            "vs_lance": "Lance sequential",
            "vs_hf_mapped": "datasets mapped sequential",
            "vs_hf_streaming": "datasets streaming sequential",
            "vs_ray_data": "Ray Data sequential",
        },
    ),
    "in a buffer": (
        "FusedDataset shuffled",
        {"vs_hf_streaming": "datasets streaming shuffled", "vs_ray_data": "Ray Data shuffled"},
    ),
    "as one permutation": (
        "FusedDataset permuted",
        {"vs_hf_mapped": "datasets mapped shuffled", "vs_lance": "Lance shuffled"},
    ),
}
"""By order: FusedDataset, and the readers that do the same work."""


def main() -> None:
    with_peers(*_PEERS)
    folder = ROOT / "out" / "bench" / "reader"
    files = write(folder)
    contenders = readers(folder, files)
    seconds = interleaved({name: counted(make) for name, make in contenders.items()}, ROUNDS)
    rate = {name: ROWS / BATCH / median(times) for name, times in seconds.items()}
    table(
        [
            {"reader": name, "batches/s": rate[name], "seconds": " ".join(f"{s:.2f}" for s in seconds[name])}
            for name in contenders
        ]
    )
    note(versions("torch", "pyarrow", "datasets", "ray", "pylance"), f"{ROWS:,} rows x {DIM}, batches of {BATCH}")
    figures: dict[str, Any] = {"rows": ROWS, "dim": DIM, "batch": BATCH, "buffer": BUFFER}
    for order, (own, peers) in LIKE_AGAINST_LIKE.items():
        figures[order] = {name: round(rate[own] / rate[peer], 3) for name, peer in peers.items()}
        figures[order]["batches_per_s"] = round(rate[own], 1)
    ordered, buffered, permuted = (figures[order] for order in LIKE_AGAINST_LIKE)
    finish(
        {
            "vs_scan": ordered["vs_scan"],
            "vs_hf_datasets": permuted["vs_hf_mapped"],
            "vs_ray_data": buffered["vs_ray_data"],
            "vs_lance": permuted["vs_lance"],
        }
        | figures
    )


def counted(make: Callable[[], Iterable[int]]) -> Callable[[], None]:
    """Reads everything and checks that no row is missing."""

    def read() -> None:
        rows = sum(make())
        if rows != ROWS:
            raise SystemExit(f"{rows} rows instead of {ROWS}")

    return read


def readers(folder: Path, files: list[str]) -> dict[str, Callable[[], Iterable[int]]]:
    """Every contender: a function that yields the number of rows of each batch."""
    import datasets
    import lance
    import numpy as np
    import pyarrow.dataset as pads
    import ray
    import torch

    from barycenter.fusion.dataset import FusedDataset

    columns = ["fused", "label"]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    datasets.disable_progress_bars()
    cache = str(folder / "hf")
    mapped = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache).select_columns(columns)
    stream = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True).select_columns(columns)
    kept = lance.dataset(to_lance(folder, files))

    def ours(shuffle: bool, buffer: int = BUFFER) -> Iterable[int]:
        for batch in FusedDataset(folder, columns=columns, batch_size=BATCH, buffer=buffer, shuffle=shuffle):
            yield len(batch["fused"])

    def scan() -> Iterable[int]:
        for batch in pads.dataset(files).to_batches(columns=columns):
            yield batch.num_rows

    def hugging(data: Any) -> Iterable[int]:
        for batch in data.with_format("torch").iter(batch_size=BATCH):
            yield len(batch["fused"])

    def ray_data(shuffle: bool) -> Iterable[int]:
        buffer = {"local_shuffle_buffer_size": BUFFER, "local_shuffle_seed": 0} if shuffle else {}
        data = ray.data.read_parquet(files).select_columns(columns)
        for batch in data.iter_torch_batches(batch_size=BATCH, **buffer):
            yield len(batch["fused"])

    def lance_batches(shuffle: bool) -> Iterable[int]:
        order = np.random.default_rng(0).permutation(ROWS)
        parts = (
            (kept.take(order[start : start + BATCH], columns=columns) for start in range(0, ROWS, BATCH))
            if shuffle
            else kept.to_batches(columns=columns, batch_size=BATCH)
        )
        for part in parts:
            column = part.column("fused")
            chunk = column.combine_chunks() if hasattr(column, "combine_chunks") else column
            vectors = torch.from_numpy(np.array(chunk.flatten().to_numpy().reshape(-1, DIM)))
            labels = torch.from_numpy(np.array(part.column("label").to_numpy()))
            yield len(vectors) if len(vectors) == len(labels) else 0

    return {
        "scan": scan,
        "FusedDataset sequential": lambda: ours(False),
        "FusedDataset shuffled": lambda: ours(True),
        "FusedDataset permuted": lambda: ours(True, ROWS),
        "datasets mapped sequential": lambda: hugging(mapped),
        "datasets mapped shuffled": lambda: hugging(mapped.shuffle(seed=0)),
        "datasets streaming sequential": lambda: hugging(stream),
        "datasets streaming shuffled": lambda: hugging(stream.shuffle(seed=0, buffer_size=BUFFER)),
        "Ray Data sequential": lambda: ray_data(False),
        "Ray Data shuffled": lambda: ray_data(True),
        "Lance sequential": lambda: lance_batches(False),
        "Lance shuffled": lambda: lance_batches(True),
    }


def write(folder: Path) -> list[str]:
    """The features and their manifest, once."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from barycenter.fusion.dataset.schema import ROW_GROUP_ROWS, feature_schema, parquet_options, vectors_to_array

    if not (folder / "manifest.json").exists():
        note("writing", f"{ROWS:,}", "rows, once")
        shutil.rmtree(folder, ignore_errors=True)
        schema = feature_schema("id", [pa.field("label", pa.int64())], DIM, "float32", ["text", "image"], False, {})
        rng = np.random.default_rng(0)
        entries = []
        for number in range(FILES):
            rows = ROWS // FILES
            path = folder / f"features/v/part-{number:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            arrays = [
                pa.array([f"row{number * rows + row}" for row in range(rows)]),
                pa.array(rng.integers(0, 10, rows)),
                vectors_to_array(rng.normal(size=(rows, DIM)).astype(np.float32)),
                *([pa.array([True] * rows)] * 2),
            ]
            made = pa.Table.from_arrays(arrays, schema=schema)
            pq.write_table(made, path, row_group_size=ROW_GROUP_ROWS, **parquet_options(schema))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            name = str(path.relative_to(folder))
            entries.append({"path": name, "rows": rows, "bytes": path.stat().st_size, "sha256": digest})
        manifest = {"number": 1, "version": "v", "key": "id", "dim": DIM, "dtype": "float32", "files": entries}
        inputs = {"text": {"kind": "text"}, "image": {"kind": "image"}}
        (folder / "manifest.json").write_text(json.dumps(manifest | {"inputs": inputs, "kept": ["label"]}))
    return sorted(str(path) for path in folder.glob("features/v/*.parquet"))


def to_lance(folder: Path, files: list[str]) -> str:
    """The same rows in Lance's format, once."""
    import lance
    import pyarrow.dataset as pads

    path = folder / "rows.lance"
    if not path.exists():
        note("converting to Lance, once")
        lance.write_dataset(pads.dataset(files).to_table(columns=["fused", "label"]), str(path))
    return str(path)


if __name__ == "__main__":
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    main()
