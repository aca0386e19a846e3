"""Train the head on fused features of training rows and score it on held-out rows."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import barycenter.fusion.heads as heads
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import JobError, RunError
from barycenter.fusion.heads import LinearHead
from barycenter.fusion.heads.labels import Reading
from barycenter.infra.blas import limited_threads
from barycenter.infra.deadline import check_deadline
from barycenter.infra.job.models import TrainJob
from barycenter.infra.job.places import RayJob
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.storage import Storage
from barycenter.infra.storage.json_files import read_if_whole
from barycenter.tasks.data.labeled_rows import read_labeled, survey
from barycenter.tasks.data.targets import inspect_target
from barycenter.tasks.heads.predictions import predictions
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import head_folder

if TYPE_CHECKING:
    from barycenter.fusion.heads import Head


_HEAD_FILES = ("head.json", "head.safetensors")


def train_head(run: Run, manifest: Manifest, cluster: Cluster | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fits the job's head on the features that the manifest lists and saves it with its metrics and predictions.

    Heads other than ``linear`` are trained on the cluster; by default they connect to Ray themselves.

    Returns:
        metrics.json as a dict, and figures for report.json.
    """
    if run.job.train is None:
        raise JobError("train", "the job file has no train section; add one with a target")
    folder = head_folder(manifest.version, run.job.train, run.job.seed)
    return fit_head(
        run.storage, manifest, run.job.train, run.job.ray, run.storage, folder,
        seed=run.job.seed, name=run.job.name, target=inspect_target(run).reading, cluster=cluster,
    )  # fmt: skip


def fit_head(
    source: Storage,
    manifest: Manifest,
    train: TrainJob,
    ray: RayJob,
    sink: Storage,
    folder: str,
    *,
    seed: int,
    name: str,
    target: Reading | None = None,
    cluster: Cluster | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fits a head on one version of a fused data set, or finds it fitted.

    Args:
        source: The fused data set.
        manifest: Of its version.
        train: Which head, for what.
        ray: The workers of heads other than ``linear``.
        sink: Where the head goes, into ``folder``.
        folder: In the sink.
        seed: Of everything random.
        name: Of the training, in Ray.
        target: How the target is read; by default its values in the data set decide.
        cluster: As in :func:`train_head`.

    Returns:
        metrics.json as a dict, and figures. Where there is nothing to learn, no head is written and the metrics only
        say so in ``notes``.
    """
    if (known := trained(sink, folder)) is not None:
        return known, {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0}
    _check_columns(manifest, train)
    with StageProgress("train", manifest.rows["written"], storage=sink) as progress, limited_threads(1):
        chosen = survey(source, manifest, train, target)
        metrics: dict[str, Any] = {
            "head": train.head,
            "version": manifest.version,
            "train": train.model_dump(mode="json"),
            "form": chosen.target.form,
            **chosen.facts(),
        }
        if not chosen.learnable:
            return metrics, progress.figures()
        rows = read_labeled(source, manifest, train, chosen)
        progress.advance(len(rows.keys))
        learned = rows.take(~rows.test)
        check_deadline()
        if train.head == "linear":
            linear = LinearHead(task=chosen.target.task, seed=seed)
            head: Head = linear.fit(learned.fused, learned.target, groups=learned.groups)
        else:
            from barycenter.tasks.heads.distributed import train_neural_head

            head = train_neural_head(
                source, manifest, train, chosen, ray, sink, folder, seed=seed, name=name, cluster=cluster
            )
        tested = rows.take(rows.test)
        metrics |= {"n_train": len(learned.keys), "n_test": len(tested.keys)}
        if tested.keys:
            scores = head.raw_scores(tested.fused, tested.aligned)
            metrics["score"] = float(head.scores_.score(scores, tested.target))
            labels, split = tested.target.tolist(), ["test"] * len(tested.keys)
            made = predictions(head, manifest.key, tested.keys, scores, labels=labels, split=split)
            sink.write_table(f"{folder}/predictions.parquet", made)
        if not isinstance(head, LinearHead):
            metrics |= {"steps": head.steps_}
        _save(sink, folder, head)
        sink.write(f"{folder}/metrics.json", json.dumps(metrics, indent=1).encode())
        figures = progress.figures()
    return metrics, figures


def trained(storage: Storage, folder: str) -> dict[str, Any] | None:
    """The metrics of the head that lies in a folder; None where it lost a file, so that it is trained again."""
    metrics = read_if_whole(storage, f"{folder}/metrics.json")
    scored = ("predictions.parquet",) if metrics and metrics.get("score") is not None else ()
    wanted = {f"{folder}/{name}" for name in (*_HEAD_FILES, *scored)}
    return metrics if set(storage.list(folder)) >= wanted else None


def load_head(storage: Storage, folder: str) -> "Head":
    """The head that lies in a folder of the storage.

    Raises:
        RunError: If there is none.
    """
    with tempfile.TemporaryDirectory() as local:
        for name in _HEAD_FILES:
            path = f"{folder}/{name}" if folder else name
            if not storage.exists(path):
                raise RunError(f"{storage.uri(folder)} holds no trained head; run `barycenter train` first")
            (Path(local) / name).write_bytes(storage.read(path))
        try:
            return heads.load(local)
        except (ValueError, KeyError) as error:
            raise RunError(f"{storage.uri(folder)}: {error}") from error


def _check_columns(manifest: Manifest, train: TrainJob) -> None:
    for key in ("target", "split", "group_by"):
        column = getattr(train, key)
        if column is not None and column not in (*manifest.kept, manifest.key):
            raise JobError(
                f"train.{key}", f"{column!r} is no column of the features; they keep {', '.join(manifest.kept)}"
            )


def _save(storage: Storage, folder: str, head: "Head") -> None:
    with tempfile.TemporaryDirectory() as local:
        head.save(local)
        for path in sorted(Path(local).iterdir()):
            storage.write(f"{folder}/{path.name}", path.read_bytes())
    storage.remove(storage.list(f"{folder}/training"))
