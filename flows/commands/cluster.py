"""Commands that run a job elsewhere or later: submit to a cluster, serve on a schedule."""

import sys
from typing import Annotated

import typer

from barycenter.flows.commands.jobs import AsOf, day, load
from barycenter.flows.console import Debug, JobPath, Overrides, app, report_errors
from barycenter.infra.logs import log_options


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
        arguments = [*_log_options(), *(flag for flag, given in flags.items() if given)]
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
    name: Annotated[str | None, typer.Option(help="Name of the deployment; default: the job's.")] = None,
    timezone: Annotated[str | None, typer.Option(help="Its time zone; default: deployment.timezone, else UTC.")] = None,
    debug: Debug = False,
) -> None:
    """Keeps a deployment of the job on this machine, running it on a schedule; needs a Prefect server."""
    with report_errors(debug):
        job = load(job_path, None)
        from barycenter.flows.serving import serve as serve_job

        serve_job(job_path, job, name=name, cron=cron, timezone=timezone)


def _log_options() -> list[str]:
    """As they were given here; without one that says how much, the job's log lines are shown."""
    given = list(log_options())
    return given if any(option.startswith(("-v", "-q")) for option in given) else ["-v", *given]


def _print_log(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
