"""Train the head on fused features of training rows and score it on held-out rows."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE
from threadpoolctl import threadpool_limits

from fusion.errors import JobError
from fusion.features import array_to_vectors
from fusion.heads.linear import LinearHead
from fusion.splits import is_test
from infra.job import TrainJob
from infra.storage import Storage
from tasks.progress import StageProgress
from tasks.run import TEST_FRACTION, Run, digest

_MAX_TRAIN_ROWS = 500_000


@task(name="train", cache_policy=NO_CACHE)
def train_head(run: Run, manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fits the job's head on the features that the manifest lists and saves it with its metrics and predictions.

    Returns:
        metrics.json as a dict, and figures for report.json.
    """
    train = run.job.train
    if train is None:
        raise JobError("train", "the job file has no train section; add one with a target")
    folder = f"head/{manifest['version']}/{digest(train.model_dump(mode='json'))}"
    if run.storage.exists(f"{folder}/metrics.json"):
        metrics: dict[str, Any] = json.loads(run.storage.read(f"{folder}/metrics.json"))
        return metrics, {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    with StageProgress("train", manifest["rows"]["written"], storage=run.storage) as progress, threadpool_limits(1):
        keys, vectors, target, groups, test = read_labelled(run.storage, manifest, train)
        progress.advance(len(keys))
        head = LinearHead(task=train.task).fit(
            vectors[~test], target[~test], groups=[group for group, held in zip(groups, test, strict=True) if not held]
        )
        metrics = {"head": train.head, "task": head.task_, "n_train": int((~test).sum()), "n_test": int(test.sum())}
        if test.any():
            metrics["score"] = float(head.score(vectors[test], target[test]))
            _write_predictions(run.storage, folder, head, [keys[row] for row in np.flatnonzero(test)], vectors[test])
        _save(run.storage, folder, head)
        run.storage.write(f"{folder}/metrics.json", json.dumps(metrics, indent=1).encode())
        figures = progress.figures()
    return metrics, figures


def read_labelled(
    storage: Storage, manifest: dict[str, Any], train: TrainJob
) -> tuple[list[str], NDArray[np.float32], NDArray[Any], list[str], NDArray[np.bool_]]:
    """Labelled rows of the feature files, in order: keys, vectors (n, dim), targets, groups and the held-out mask."""
    tables = []
    held = 0
    columns = [column for column in (train.target, train.split, train.group_by) if column is not None]
    for file in manifest["files"]:
        table = read_file(storage, manifest, file, [manifest["key"], "fused", *columns])
        labelled = [value not in (None, "") for value in table.column(train.target).to_pylist()]
        tables.append(table.filter(pa.array(labelled)))
        held += tables[-1].num_rows
        if held >= _MAX_TRAIN_ROWS:
            break
    table = pa.concat_tables(tables)
    keys = table.column(manifest["key"]).to_pylist()
    groups = keys
    if train.group_by is not None:
        values = table.column(train.group_by).to_pylist()
        groups = [key if value is None else str(value) for key, value in zip(keys, values, strict=True)]
    if train.split is not None:
        test = np.array([value == "test" for value in table.column(train.split).to_pylist()], dtype=bool)
    else:
        test = is_test(groups, TEST_FRACTION)
    vectors = np.asarray(array_to_vectors(table.column("fused")), dtype=np.float32)
    return keys, vectors, np.array(table.column(train.target).to_pylist(), dtype=object), groups, test


def read_file(storage: Storage, manifest: dict[str, Any], file: dict[str, Any], columns: list[str]) -> pa.Table:
    """Some columns of one feature file, its partition values put back."""
    inside = [column for column in dict.fromkeys(columns) if column not in manifest["partition_by"]]
    with storage.open(file["path"]) as source:
        table = pq.read_table(source, columns=inside)
    for column in dict.fromkeys(columns):
        if column in manifest["partition_by"]:
            table = table.append_column(column, pa.array([file["partition"][column]] * table.num_rows))
    return table


def _save(storage: Storage, folder: str, head: LinearHead) -> None:
    with tempfile.TemporaryDirectory() as local:
        head.save(local)
        for path in sorted(Path(local).iterdir()):
            storage.write(f"{folder}/{path.name}", path.read_bytes())


def _write_predictions(
    storage: Storage, folder: str, head: LinearHead, keys: list[str], vectors: NDArray[np.float32]
) -> None:
    columns: dict[str, Any] = {"key": keys, "prediction": list(head.predict(vectors))}
    if head.task_ == "classification":
        columns["probability"] = head.predict_proba(vectors).max(axis=1)
    storage.write_table(f"{folder}/predictions.parquet", pa.table(columns))
