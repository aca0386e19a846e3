"""The whole job as one Prefect flow: embed, align, fuse, train, report."""

from collections.abc import Sequence
from typing import Any

from prefect import flow

import barycenter.flows.environment  # noqa: F401  (before Prefect and Ray)
from barycenter.flows import story
from barycenter.flows.ending import reported
from barycenter.flows.parameters import DEMO, JobParameter, job_of, run_name
from barycenter.flows.stages import TASKS
from barycenter.infra.job.fields import Date
from barycenter.infra.logs import bound
from barycenter.tasks.pipeline import look_at, run_job
from barycenter.tasks.planning.plan import held


@flow(name="barycenter", flow_run_name=run_name())
@reported
def pipeline(
    job: JobParameter = DEMO,
    recheck: bool = False,
    retry_bad: bool = False,
    refit: bool = False,
    adopt: bool = False,
    as_of: Date | None = None,
    input_order: Sequence[str] = (),
) -> dict[str, Any]:
    """Embeds every input, aligns the spaces, writes fused features, trains the head and reports.

    Args:
        job: The job, the path of a job file, or `demo`.
        recheck: Embed again what refers to pictures that changed.
        retry_bad: Embed again the shards that held bad inputs.
        refit: Fit the alignment again although a committed one has the same settings.
        adopt: Embed anew, under a new id, where other versions of the libraries give other vectors.
        as_of: Take the corpus as it was that day: its dated partitions up to it.
        input_order: Names of the inputs in their order; PostgreSQL does not keep that of the form.

    Returns:
        The report, as in report/report.json; nothing where the run was skipped.
    """
    asked = job_of(job, input_order)
    with (
        bound(run=asked.name),
        held(asked, recheck=recheck, retry_bad=retry_bad, refit=refit, adopt=adopt, as_of=as_of) as run,
    ):
        story.begin(run)
        with story.workers_for(run, look_at(run)) as cluster:
            report = run_job(run, cluster, TASKS)
        story.end(run, report)
    return report
