"""Train the head on fused features of training rows and score it on held-out rows."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE
from threadpoolctl import threadpool_limits

import fusion.heads as heads
from fusion.errors import JobError, RunError
from fusion.features import array_to_vectors, partition_scalar
from fusion.heads import LinearHead
from fusion.splits import is_test
from infra.job import RayJob, TrainJob
from infra.storage import Storage
from tasks.aligned import AlignedRows
from tasks.digest import digest
from tasks.progress import StageProgress
from tasks.run import TEST_FRACTION, Run

if TYPE_CHECKING:
    from fusion.heads import Head

_MAX_TRAIN_ROWS = 500_000

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled rows of the feature files, in their order.

    Attributes:
        keys: Their keys.
        fused: (n, dim).
        aligned: ``{input: (n, dim)}``, NaN where it is missing; for a head that reads only which inputs there are,
            (n, 1).
        target: (n,) labels.
        groups: What no split divides.
        test: (n,) held-out rows.
    """

    keys: list[str]
    fused: Vectors
    aligned: dict[str, Vectors]
    target: NDArray[Any]
    groups: list[str]
    test: NDArray[np.bool_]

    def take(self, mask: NDArray[np.bool_]) -> "Labelled":
        """The rows under a mask."""
        rows = np.flatnonzero(mask)
        return Labelled(
            [self.keys[row] for row in rows],
            self.fused[rows],
            {name: values[rows] for name, values in self.aligned.items()},
            self.target[rows],
            [self.groups[row] for row in rows],
            self.test[rows],
        )


@task(name="train", cache_policy=NO_CACHE)
def train_head(run: Run, manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fits the job's head on the features that the manifest lists and saves it with its metrics and predictions.

    Returns:
        metrics.json as a dict, and figures for report.json.
    """
    if run.job.train is None:
        raise JobError("train", "the job file has no train section; add one with a target")
    folder = f"head/{manifest['version']}/{digest(run.job.train.model_dump(mode='json'), run.job.seed)}"
    return fit_head(
        run.storage, manifest, run.job.train, run.job.ray, run.storage, folder, seed=run.job.seed, name=run.job.name
    )


def fit_head(
    source: Storage,
    manifest: dict[str, Any],
    train: TrainJob,
    ray: RayJob,
    sink: Storage,
    folder: str,
    *,
    seed: int,
    name: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fits a head on one version of a fused data set, or finds it fitted.

    Args:
        source: The fused data set.
        manifest: Of its version.
        train: Which head, for what.
        ray: Where heads other than ``linear`` are trained.
        sink: Where the head goes.
        folder: In the sink.
        seed: Of everything random.
        name: Of the training, in Ray.

    Returns:
        metrics.json as a dict, and figures.
    """
    if sink.exists(f"{folder}/metrics.json"):
        metrics: dict[str, Any] = json.loads(sink.read(f"{folder}/metrics.json"))
        return metrics, {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    _check_columns(manifest, train)
    with StageProgress("train", manifest["rows"]["written"], storage=sink) as progress, threadpool_limits(1):
        rows = read_labelled(source, manifest, train)
        progress.advance(len(rows.keys))
        learned = rows.take(~rows.test)
        if not learned.keys:
            raise RunError(f"no training row has a `{train.target}`; nothing to learn from")
        if train.head == "linear":
            head: Head = LinearHead(task=train.task, seed=seed).fit(learned.fused, learned.target, learned.groups)
        else:
            from tasks.descent import descended

            head = descended(source, manifest, train, ray, sink, folder, seed=seed, name=name, rows=len(learned.keys))
        tested = rows.take(rows.test)
        metrics = {"head": train.head, "task": head.task_, "n_train": len(learned.keys), "n_test": len(tested.keys)}
        if tested.keys:
            scores = scores_of(head, tested.fused, tested.aligned)
            metrics["score"] = float(head.scores_.score(scores, tested.target))
            sink.write_table(f"{folder}/predictions.parquet", predictions(head, tested.keys, scores))
        if not isinstance(head, LinearHead):
            metrics |= {"steps": head.steps_}
        _save(sink, folder, head)
        sink.write(f"{folder}/metrics.json", json.dumps(metrics, indent=1).encode())
        figures = progress.figures()
    return metrics, figures


def scores_of(head: "Head", fused: Vectors, aligned: dict[str, Vectors]) -> NDArray[np.float64]:
    """(n, k) scores of any head."""
    if isinstance(head, LinearHead):
        return head.decision_function(fused)
    return head.decision_function(fused, aligned)


def predictions(head: "Head", keys: list[str], scores: NDArray[np.float64]) -> pa.Table:
    """Key, prediction, and for classes and labels the probability: of the predicted class, or of every label."""
    columns: dict[str, Any] = {"key": pa.array(keys, pa.string())}
    decoded = head.scores_.decode(scores)
    columns["prediction"] = list(decoded) if len(decoded) else pa.array([], pa.string())
    if head.task_ == "classification":
        columns["probability"] = head.scores_.probabilities(scores).max(axis=1)
    elif head.task_ == "multilabel":
        columns["probability"] = head.scores_.probabilities(scores).tolist()
    return pa.table(columns)


def read_labelled(storage: Storage, manifest: dict[str, Any], train: TrainJob) -> Labelled:
    """Labelled rows of the feature files, in order, with what the head reads besides the fused vectors."""
    tables, aligned = [], []
    held = 0
    columns = [column for column in (train.target, train.split, train.group_by) if column is not None]
    reader = HeadInputs(storage, manifest, train.head)
    for file in manifest["files"]:
        table = read_file(storage, manifest, file, [manifest["key"], "fused", *columns, *reader.columns])
        labelled = np.array([value not in (None, "") for value in table.column(train.target).to_pylist()], dtype=bool)
        aligned.append({name: values[labelled] for name, values in reader.of(table).items()})
        tables.append(table.select([manifest["key"], "fused", *dict.fromkeys(columns)]).filter(pa.array(labelled)))
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
    fused = np.asarray(array_to_vectors(table.column("fused")), dtype=np.float32)
    target = np.empty(len(keys), dtype=object)
    target[:] = table.column(train.target).to_pylist()
    whole = {name: np.concatenate([part[name] for part in aligned]) for name in aligned[0]} if aligned else {}
    return Labelled(keys, fused, whole, target, groups, test)


class HeadInputs:
    """What a kind of head reads of the feature files besides the fused vectors.

    Attributes:
        columns: Columns to read for it.
    """

    def __init__(self, storage: Storage, manifest: dict[str, Any], kind: str) -> None:
        self._names, self._kind = list(manifest["inputs"]), kind
        self._rows: AlignedRows | None = None
        self.columns: list[str] = []
        if kind == "mlp":
            self.columns = [f"has_{name}" for name in self._names]
        elif kind != "linear":
            self._rows = AlignedRows(storage, manifest)
            self.columns = self._rows.columns

    def of(self, table: pa.Table) -> dict[str, Vectors]:
        """Aligned vectors; (n, 1) of 0 and NaN where only presence counts; nothing for a linear head."""
        if self._rows is not None:
            return self._rows.of(table)
        if self._kind == "linear":
            return {}
        there = {name: table.column(f"has_{name}").to_numpy() for name in self._names}
        return {name: np.where(has, 0.0, np.nan).astype(np.float32)[:, None] for name, has in there.items()}


def read_file(storage: Storage, manifest: dict[str, Any], file: dict[str, Any], columns: list[str]) -> pa.Table:
    """Some columns of one feature file, its partition values put back."""
    inside = [column for column in dict.fromkeys(columns) if column not in manifest["partition_by"]]
    with storage.open(file["path"]) as source:
        table = pq.read_table(source, columns=inside)
    for column in dict.fromkeys(columns):
        if column in manifest["partition_by"]:
            value = partition_scalar(file["partition"][column], manifest["partition_types"][column])
            table = table.append_column(column, pa.repeat(value, table.num_rows))
    return table


def load_head(storage: Storage, folder: str) -> "Head":
    """The head that lies in a folder of the storage.

    Raises:
        RunError: If there is none.
    """
    with tempfile.TemporaryDirectory() as local:
        for name in ("head.json", "head.safetensors"):
            path = f"{folder}/{name}" if folder else name
            if not storage.exists(path):
                raise RunError(f"{storage.uri(folder)} holds no trained head; run `barycenter train` first")
            (Path(local) / name).write_bytes(storage.read(path))
        try:
            return heads.load(local)
        except (ValueError, KeyError) as error:
            raise RunError(f"{storage.uri(folder)}: {error}") from error


def _check_columns(manifest: dict[str, Any], train: TrainJob) -> None:
    for key in ("target", "split", "group_by"):
        column = getattr(train, key)
        if column is not None and column not in (*manifest["kept"], manifest["key"]):
            raise JobError(
                f"train.{key}", f"{column!r} is no column of the features; they keep {', '.join(manifest['kept'])}"
            )


def _save(storage: Storage, folder: str, head: "Head") -> None:
    with tempfile.TemporaryDirectory() as local:
        head.save(local)
        for path in sorted(Path(local).iterdir()):
            storage.write(f"{folder}/{path.name}", path.read_bytes())
    storage.remove(storage.list(f"{folder}/training"))
