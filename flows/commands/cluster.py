"""Commands that run a job elsewhere or later: submit to a cluster, serve on a schedule."""

import sys
from typing import Annotated

import typer

from barycenter.flows.commands.jobs import AsOf, day, load
from barycenter.flows.console import Debug, JobPath, Overrides, app, report_errors
from barycenter.flows.health import answers
from barycenter.flows.server import LOCAL_API
from barycenter.fusion.errors import JobError, RunError


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
        str | None, typer.Option(help='When to run, e.g. "0 3 * * *"; without it: when asked in the UI.')
    ] = None,
    timezone: Annotated[str, typer.Option(help="Time zone of --cron.")] = "UTC",
    debug: Debug = False,
) -> None:
    """Keeps a deployment of the job on this machine, running it on a schedule; needs a Prefect server."""
    with report_errors(debug):
        job = load(job_path, None)
        from prefect.schedules import Cron
        from prefect.settings import PREFECT_API_URL, temporary_settings
        from prefect.types.entrypoint import EntrypointType

        from barycenter.infra.names import identifier

        api = PREFECT_API_URL.value() or LOCAL_API
        if not answers(api):
            raise RunError(f"no Prefect server answers at {api}; start it with `prefect server start`")
        try:
            schedule = Cron(cron, timezone=timezone) if cron else None
        except ValueError as error:
            raise JobError("--cron", " ".join(str(error).split())[:200]) from None
        with temporary_settings({PREFECT_API_URL: api}):
            from barycenter.flows.pipeline import pipeline

            pipeline.serve(
                name=identifier(job.name),
                parameters={"job": str(job_path.resolve())},
                schedule=schedule,
                tags=["barycenter"],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )


def _print_log(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
