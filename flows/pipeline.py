"""The whole job as one Prefect flow: embed, align, fuse, train, report."""

from typing import Any

from prefect import flow

import flows.environment  # noqa: F401  (before Prefect and Ray)
from infra.cluster import connect
from infra.job import Job
from tasks.align import fit_alignment
from tasks.embed import embed_input
from tasks.fuse import fuse_features
from tasks.plan import prepare
from tasks.report import average_of, write_report
from tasks.train import train_head


@flow(name="barycenter", flow_run_name="{job.name}")
def pipeline(job: Job, recheck: bool = False, retry_bad: bool = False, refit: bool = False) -> dict[str, Any]:
    """Embeds every input, aligns the spaces, writes fused features, trains the head and reports.

    Args:
        job: The job; paths absolute or relative to the working directory.
        recheck: Embed again what refers to pictures that changed.
        retry_bad: Embed again the shards that held bad inputs.
        refit: Fit the alignment again although a committed one has the same settings.

    Returns:
        The report, as in report/report.json.
    """
    run = prepare(job, recheck=recheck, retry_bad=retry_bad, refit=refit)
    speed: dict[str, Any] = {}
    with connect(job.ray.address) as cluster:
        for name in run.inputs:
            speed[f"embed {name}"] = embed_input(run, name, cluster)
        fitted, speed["align"] = fit_alignment(run, cluster)
        average, weights = average_of(job)
        manifest, speed["fuse"] = fuse_features(run, cluster, fitted, average, weights)
    head = None
    if job.train is not None:
        head, speed["train"] = train_head(run, manifest)
    return write_report(run, fitted, manifest, speed, head)
