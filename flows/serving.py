"""A deployment of one job, run by the process that serves it."""

from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from barycenter.flows.deployments import TAG, Deployments, check_tags, cron_schedule, file_of, name_for
from barycenter.flows.pipeline import pipeline
from barycenter.flows.server import lasting_server
from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job


def serve(path: Path, job: Job, *, name: str | None, cron: str | None, timezone: str | None) -> None:
    """Serves a job until it is interrupted: makes its deployment and runs it on its schedule.

    Args:
        path: The job file, which each run reads.
        job: What it holds.
        name: Of the deployment; by default the job's.
        cron: When it runs; by default as ``deployment`` of the job says, else when asked.
        timezone: Of the schedule; likewise, else UTC.

    Raises:
        JobError: The schedule is none, or the deployment is another's.
        RunError: No Prefect server answers.
    """
    said = job.deployment
    check_tags(said.tags, "deployment.tags")
    when, zone = cron or said.schedule, timezone or said.timezone or "UTC"
    if when is not None:
        keys = ("--cron" if cron else "deployment.schedule", "--timezone" if timezone else "deployment.timezone")
        cron_schedule(when, zone, keys)
    named, file = name_for(job, path.stem, name), str(path.resolve())
    with lasting_server():
        with get_client(sync_client=True) as client:
            _refuse_another(client, named, file)
        flags = said.parameters.model_dump(mode="json", exclude_unset=True)
        pipeline.serve(
            name=named,
            parameters={"job": file, **flags},
            schedule=Cron(when, timezone=zone) if when is not None else None,
            tags=list(dict.fromkeys([TAG, *said.tags])),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )


def _refuse_another(client: SyncPrefectClient, name: str, file: str) -> None:
    """Leaves alone what a worker runs, or another process serves.

    Raises:
        JobError: On ``--name``: it is the name of such a deployment.
    """
    full = Deployments.name_of(name)
    try:
        there = client.read_deployment_by_name(full)
    except ObjectNotFound:
        return
    served = there.parameters.get("job")
    if there.work_pool_name is not None:
        made = f", made by `barycenter deploy` of {file_of(there)}" if file_of(there) else ""
        whose = f"is run by work pool {there.work_pool_name}{made}"
    elif served != file:
        whose = f"serves {served if isinstance(served, str) else 'another job'}"
    else:
        return
    raise JobError(
        "--name", f"the deployment {full} {whose}; give another name, or delete it: `prefect deployment delete {full}`"
    )
