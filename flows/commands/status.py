"""The command that says what an output is at: who holds it, how far, which version is the newest."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from barycenter.flows.console import Debug, EndpointUrl, Folder, app, out, report_errors

_ALIVE = {True: "is running", False: "is gone: the next run takes over", None: "cannot be seen from here: try --watch"}
_NO_ROWS = "none has reported rows"


@app.command()
def status(
    folder: Folder,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait up to a minute for a holder on another machine to show that it lives.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """Who holds the output, since when, which stage, how far; the newest version, and which one the report shows."""
    with report_errors(debug):
        from barycenter.infra.storage import Storage
        from barycenter.tasks.run.status import describe_status

        found = describe_status(Storage(folder, endpoint_url), watch=watch)
        if as_json:
            out.print_json(json.dumps(found))
            return
        table = Table(title=found["output"], show_header=False)
        for name, value in _facts(found).items():
            table.add_row(name, value)
        out.print(table)


def _facts(found: dict[str, Any]) -> dict[str, str]:
    """The lines of the table."""
    return {
        **_holder(found["lease"]),
        **_progress(found["progress"]),
        "newest version": _newest(found["versions"]),
        "readers see": "nothing yet" if (shown := found["versions"]["shown"]) is None else f"version {shown}",
        "report": _report(found["report"], found["versions"]["newest"]),
    }


def _holder(lease: dict[str, Any] | None) -> dict[str, str]:
    if lease is None:
        return {"held by": "nobody, and never was"}
    named = f"{lease['purpose']} ({lease['who']})"
    if lease["state"] == "released":
        return {"held by": "nobody", "last held by": f"{named}, since {lease['since']}"}
    return {"held by": named, "since": lease["since"], "its process": _ALIVE[lease["alive"]]}


def _progress(progress: dict[str, Any] | None) -> dict[str, str]:
    if progress is None:
        return {"stage": _NO_ROWS}
    name = {"holder": "stage", "last run": "last stage", "earlier run": "an earlier run's"}[progress["of"]]
    lines = "\n".join(_stage(stage, progress["of"]) for stage in progress["stages"])
    return ({} if progress["of"] != "earlier run" else {"stage": _NO_ROWS}) | {name: lines}


def _stage(stage: dict[str, Any], of: str) -> str:
    line = f"{stage['stage']}: {stage['rows']:,}/{stage['total']:,} rows, {stage['rows_per_s']:,.0f} rows/s"
    if of == "holder":
        left = stage["seconds_left"]
        return line + ("" if left is None else f", about {left:,.0f} s left")
    return f"{line}, when it was last written" if of == "last run" else line


def _newest(versions: dict[str, Any]) -> str:
    newest = versions["newest"]
    if newest is None:
        return "none is committed yet"
    rows = newest["rows"]["written"]
    return f"{newest['number']}: {newest['version']}, {rows:,} rows, committed {newest['committed']}"


def _report(report: dict[str, Any] | None, newest: dict[str, Any] | None) -> str:
    if report is None:
        return "none is written yet"
    line = f"of version {report['number']}: {report['version']}, run {report['name']}"
    if report["newest"] or newest is None:
        return line
    return f"{line}; not of the newest, for which `barycenter report` writes one"
