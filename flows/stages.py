"""Each stage of the job as a Prefect flow of its own; each refuses to start where the stage before it is not done."""

from typing import Any

from prefect import flow

import flows.environment  # noqa: F401  (before Prefect and Ray)
from fusion.errors import RunError
from infra.cluster import connect
from infra.commit import read_manifest
from infra.job import Job
from tasks.align import Fitted, fit_alignment, load_alignment
from tasks.embed import embed_input, pending
from tasks.fuse import fuse_features
from tasks.plan import prepare
from tasks.report import average_of, write_report
from tasks.run import Run
from tasks.train import train_head


@flow(name="barycenter-embed", flow_run_name="embed {job.name}")
def embed(job: Job, recheck: bool = False, retry_bad: bool = False) -> dict[str, Any]:
    """Embeds what is missing of every input."""
    run = prepare(job, recheck=recheck, retry_bad=retry_bad)
    with connect(job.ray.address) as cluster:
        return {f"embed {name}": embed_input(run, name, cluster) for name in run.inputs}


@flow(name="barycenter-align", flow_run_name="align {job.name}")
def align(job: Job, refit: bool = False) -> dict[str, Any]:
    """Fits the alignment on finished embeddings."""
    run = _embedded(prepare(job, refit=refit))
    with connect(job.ray.address) as cluster:
        fitted, _ = fit_alignment(run, cluster)
    return fitted.summary


@flow(name="barycenter-fuse", flow_run_name="fuse {job.name}")
def fuse(job: Job) -> dict[str, Any]:
    """Writes and commits fused features from finished embeddings, fitting the alignment if it is not fitted."""
    run = _embedded(prepare(job))
    with connect(job.ray.address) as cluster:
        fitted, _ = fit_alignment(run, cluster)
        average, weights = average_of(job)
        manifest, _ = fuse_features(run, cluster, fitted, average, weights)
    return {"number": manifest["number"], "version": manifest["version"], "rows": manifest["rows"]}


@flow(name="barycenter-train", flow_run_name="train {job.name}")
def train(job: Job) -> dict[str, Any]:
    """Trains the head on the newest committed features."""
    run = prepare(job)
    metrics, _ = train_head(run, _committed(run))
    return metrics


@flow(name="barycenter-report", flow_run_name="report {job.name}")
def report(job: Job) -> dict[str, Any]:
    """Writes the report of the newest committed features again."""
    run = _embedded(prepare(job))
    manifest = _committed(run)
    alignment = load_alignment(run.storage, manifest["alignment_id"])
    fitted = Fitted(alignment, manifest["alignment_id"], manifest["alignment"])
    head = train_head(run, manifest)[0] if job.train is not None else None
    return write_report(run, fitted, manifest, {}, head)


def _embedded(run: Run) -> Run:
    for name in run.inputs:
        if left := len(pending(run, name)):
            raise RunError(f"{left} shard(s) of input {name} are not embedded; run `barycenter embed` first")
    return run


def _committed(run: Run) -> dict[str, Any]:
    if not run.storage.exists("manifest.json"):
        raise RunError(f"{run.job.output.path} holds no committed features; run `barycenter fuse` first")
    manifest: dict[str, Any] = read_manifest(run.storage)
    return manifest
