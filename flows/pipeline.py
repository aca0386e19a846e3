"""The whole job as one Prefect flow: embed, align, fuse, train, report."""

from typing import Any

from prefect import flow

import barycenter.flows.environment  # noqa: F401  (before Prefect and Ray)
from barycenter.flows.parameters import DEMO, JobParameter, job_of, run_name
from barycenter.flows.stages import embed_inputs, fuse_inputs
from barycenter.infra.logs import bound
from barycenter.infra.ray.connection import connect
from barycenter.tasks.heads.stage import train_head
from barycenter.tasks.planning.plan import prepared
from barycenter.tasks.report.stage import write_report


@flow(name="barycenter", flow_run_name=run_name())
def pipeline(
    job: JobParameter = DEMO, recheck: bool = False, retry_bad: bool = False, refit: bool = False
) -> dict[str, Any]:
    """Embeds every input, aligns the spaces, writes fused features, trains the head and reports.

    Args:
        job: The job, the path of a job file, or `demo`.
        recheck: Embed again what refers to pictures that changed.
        retry_bad: Embed again the shards that held bad inputs.
        refit: Fit the alignment again although a committed one has the same settings.

    Returns:
        The report, as in report/report.json.
    """
    run = prepared(job_of(job), recheck=recheck, retry_bad=retry_bad, refit=refit)
    with bound(run=run.job.name):
        with connect(run.job.ray.address) as cluster:
            speed = embed_inputs(run, cluster)
            fitted, manifest, further = fuse_inputs(run, cluster)
        speed |= further
        head = None
        if run.job.train is not None:
            head, speed["train"] = train_head(run, manifest)
        return write_report(run, fitted, manifest, speed, head)
