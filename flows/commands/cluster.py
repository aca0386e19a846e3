"""Commands that run a job elsewhere or later: submit to a cluster, serve on a schedule."""

import sys
from typing import Annotated

import typer

from barycenter.flows.commands.jobs import AsOf, day, load
from barycenter.flows.console import Debug, JobPath, Overrides, app, report_errors
from barycenter.flows.server import lasting_server


@app.command()
def submit(
    job_path: JobPath,
    address: Annotated[str, typer.Option(metavar="URL", help="The cluster's dashboard, e.g. http://head:8265.")],
    overrides: Overrides = None,
    retry_bad: Annotated[bool, typer.Option("--retry-bad", help="As in run.")] = False,
    recheck: Annotated[bool, typer.Option("--recheck", help="As in run.")] = False,
    refit: Annotated[bool, typer.Option("--refit", help="As in run.")] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="As in run.")] = False,
    as_of: AsOf = None,
    debug: Debug = False,
) -> None:
    """The same job through Ray's job submission; follows its log and ends with its exit code."""
    with report_errors(debug):
        from barycenter.infra.ray.submission import submit as submit_job

        job = load(job_path, overrides)
        flags = {"--retry-bad": retry_bad, "--recheck": recheck, "--refit": refit, "--adopt": adopt, "--debug": debug}
        arguments = [flag for flag, given in flags.items() if given]
        if (when := day(as_of)) is not None:
            arguments += ["--as-of", str(when)]
        code = submit_job(address, job, arguments, write=_print_log)
    if code:
        raise typer.Exit(code)


@app.command()
def serve(
    job_path: JobPath,
    cron: Annotated[
        str | None, typer.Option(help='When to run, e.g. "0 3 * * *"; default: deployment.schedule, else when asked.')
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Its time zone; default: deployment.timezone, else UTC.")] = None,
    debug: Debug = False,
) -> None:
    """Keeps a deployment of the job on this machine, running it on a schedule; needs a Prefect server."""
    with report_errors(debug):
        job = load(job_path, None)
        from prefect.schedules import Cron
        from prefect.types.entrypoint import EntrypointType

        from barycenter.flows.deployments import cron_schedule
        from barycenter.infra.names import identifier

        said = job.deployment
        when, zone = cron or said.schedule, timezone or said.timezone or "UTC"
        if when is not None:
            keys = ("--cron" if cron else "deployment.schedule", "--timezone" if timezone else "deployment.timezone")
            cron_schedule(when, zone, keys)
        with lasting_server():
            from barycenter.flows.pipeline import pipeline

            flags = said.parameters.model_dump(mode="json", exclude_unset=True)
            pipeline.serve(
                name=identifier(job.name),
                parameters={"job": str(job_path.resolve()), **flags},
                schedule=Cron(when, timezone=zone) if when is not None else None,
                tags=list(dict.fromkeys(["barycenter", *said.tags])),
                entrypoint_type=EntrypointType.MODULE_PATH,
            )


def _print_log(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
