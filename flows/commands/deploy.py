"""The command that makes a Prefect deployment of each job file of a folder."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barycenter.flows.console import Debug, Overrides, app, out, report_errors
from barycenter.flows.server import lasting_server
from barycenter.fusion.errors import JobError, RunError

if TYPE_CHECKING:
    from barycenter.flows.deployments import Deployments, Problem, Wanted


@app.command()
def deploy(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of job files.")],
    overrides: Overrides = None,
    work_pool: Annotated[str, typer.Option(metavar="NAME", help="Work pool of files that name none.")] = "default",
    schedule: Annotated[
        str | None, typer.Option(metavar="CRON", help='When files run that do not say it, e.g. "0 2 * * *".')
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Time zone of schedules without one; default: UTC.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="A further tag of every deployment.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete deployments whose file is gone.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, and show what would be done.")] = False,
    group: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Names the folder where its path is not the same every time (CI)."),
    ] = None,
    debug: Debug = False,
) -> None:
    """A Prefect deployment for each job file of a folder; again after every change. Needs a Prefect server."""
    with report_errors(debug):
        from barycenter.flows.deployments import Defaults, Deployments, read_folder

        path = folder.resolve()
        named = group or str(path)
        defaults = Defaults(work_pool, schedule, timezone, tuple(tags or ()))
        defaults.check()
        wanted, problems = read_folder(path, named, overrides or [], defaults)
        with ExitStack() as stack:
            try:
                stack.enter_context(lasting_server())
            except RunError:
                _name_problems(problems)  # what is wrong with a file is known without a server
                raise
            from prefect.client.orchestration import get_client

            with get_client(sync_client=True) as client:
                deployments = Deployments(client, named)
                _refuse(wanted, problems, deployments)
                if not wanted and not deployments.stale(wanted):
                    raise JobError("", f"{path} holds no job file (.yaml, .yml)")
                for each in wanted:
                    _deploy(each, deployments, dry_run)
                _retire(wanted, deployments, prune, dry_run)


def _refuse(wanted: Sequence["Wanted"], problems: Sequence["Problem"], deployments: "Deployments") -> None:
    """Names everything that is wrong, by file and key, before anything is deployed.

    Raises:
        JobError: Something is.
    """
    _name_problems([*problems, *((each.file, error) for each in wanted for error in deployments.check(each))])


def _name_problems(found: Sequence["Problem"]) -> None:
    for file, error in sorted(found, key=lambda each: each[0]):
        print(f"barycenter: {file}: {error}", file=sys.stderr)
    if found:
        files = len({file for file, _ in found})
        wrong = "1 job file is" if files == 1 else f"{files} job files are"
        raise JobError("", f"{wrong} wrong; nothing was deployed")


def _deploy(wanted: "Wanted", deployments: "Deployments", dry_run: bool) -> None:
    from barycenter.flows.deployments import file_of

    before = deployments.there.get(wanted.name)
    action = deployments.compare(wanted) if dry_run else deployments.apply(wanted)
    when = f"{wanted.schedule.cron} ({wanted.schedule.timezone})" if wanted.schedule is not None else "when asked"
    moved = f", before from {file_of(before)}" if before is not None and file_of(before) != wanted.file else ""
    verb = f"would be {action}" if dry_run and action != "unchanged" else action
    _say(f"{verb} {deployments.name_of(wanted.name)}: {wanted.file}{moved}, {when}, work pool {wanted.work_pool}")
    for note in deployments.notes(wanted):
        print(f"{wanted.file}: {note}", file=sys.stderr)


def _retire(wanted: Sequence["Wanted"], deployments: "Deployments", prune: bool, dry_run: bool) -> None:
    """Deletes, or names, the deployments that no file asks for any more."""
    from barycenter.flows.deployments import file_of

    for each in deployments.stale(wanted):
        asked_for = f"{deployments.name_of(each.name)}: no job file asks for it any more (it was {file_of(each)})"
        if not prune:
            runs = ", and it still runs by its schedule" if any(plan.active for plan in each.schedules) else ""
            _say(f"stale {asked_for}{runs}; --prune deletes it")
        elif dry_run:
            _say(f"would be deleted {asked_for}")
        else:
            deployments.delete(each)
            _say(f"deleted {asked_for}")


def _say(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
