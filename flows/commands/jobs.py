"""Commands that run a job: the whole of it, the demo, one stage."""

import json
import os
import shlex
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer
from rich.table import Table

from barycenter.flows.console import Debug, JobPath, Overrides, app, out, report_errors
from barycenter.flows.server import PrefectServer, run_flow
from barycenter.fusion.errors import JobError
from barycenter.infra.job.fields import parse_date
from barycenter.infra.job.models import Job
from barycenter.infra.logs import print_line
from barycenter.infra.words import counted

if TYPE_CHECKING:
    from barycenter.tasks.pipeline import Left
    from barycenter.tasks.run.context import Flags, Run

AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="DATE", help="Take the corpus as it was that day: its dated partitions up to it."),
]


RetryBad = Annotated[bool, typer.Option("--retry-bad", help="Embed again the shards that held bad inputs.")]
Recheck = Annotated[bool, typer.Option("--recheck", help="Embed again what refers to changed pictures.")]
Refit = Annotated[bool, typer.Option("--refit", help="Fit the alignment again.")]
Adopt = Annotated[bool, typer.Option("--adopt", help="Embed anew where other library versions give other vectors.")]


@app.command()
def run(
    job_path: JobPath,
    overrides: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be done; start nothing.")] = False,
    hourly_price: Annotated[
        float | None, typer.Option(min=0, help="With --plan: what the machines cost an hour, for an estimate.")
    ] = None,
    retry_bad: RetryBad = False,
    recheck: Recheck = False,
    refit: Refit = False,
    adopt: Adopt = False,
    as_of: AsOf = None,
    debug: Debug = False,
) -> None:
    """The whole job: embed, align, fuse, train, report."""
    with report_errors(debug):
        job = load(job_path, overrides)
        _quiet(debug)
        flags: Flags = {"recheck": recheck, "retry_bad": retry_bad, "refit": refit, "adopt": adopt}
        flags["as_of"] = day(as_of)
        if plan:
            _show_plan(job, _prepare(job, **flags), hourly_price)
            return
        with PrefectServer() as server:
            prepared = _prepare(job, **flags)
            _note(prepared)
            _hand_over(prepared)
            left = _left(prepared)
            workers = left is None or left.needs_workers(prepared)
            result = _finished(job, flags) if left is not None and left.nothing and server.is_temporary else None
            if result is None:
                result = run_flow("barycenter.flows.pipeline", "pipeline", job, server, workers=workers, **flags)
        _show_report(job, result)


@app.command()
def demo(
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where corpus and results go.")] = Path(
        "out/demo"
    ),
    debug: Debug = False,
) -> None:
    """The main job on a generated corpus with built-in encoders; no network, no weights."""
    with report_errors(debug):
        _quiet(debug)
        from barycenter.flows.parameters import demo as demo_of

        job = demo_of(out_dir)
        with PrefectServer() as server:
            _hand_over(_prepare(job))
            result = run_flow("barycenter.flows.pipeline", "pipeline", job, server)
        _show_report(job, result)


@app.command()
def embed(
    job_path: JobPath,
    overrides: Overrides = None,
    retry_bad: RetryBad = False,
    recheck: Recheck = False,
    adopt: Adopt = False,
    as_of: AsOf = None,
    debug: Debug = False,
) -> None:
    """Embed what is missing of every input."""
    _stage("embed", job_path, overrides, debug, as_of, retry_bad=retry_bad, recheck=recheck, adopt=adopt)


@app.command()
def align(
    job_path: JobPath,
    overrides: Overrides = None,
    refit: Refit = False,
    as_of: AsOf = None,
    debug: Debug = False,
) -> None:
    """Fit the alignment on finished embeddings."""
    _stage("align", job_path, overrides, debug, as_of, refit=refit)


@app.command()
def fuse(job_path: JobPath, overrides: Overrides = None, as_of: AsOf = None, debug: Debug = False) -> None:
    """Write and commit the fused features."""
    _stage("fuse", job_path, overrides, debug, as_of)


@app.command()
def train(job_path: JobPath, overrides: Overrides = None, as_of: AsOf = None, debug: Debug = False) -> None:
    """Train the head on the newest features."""
    _stage("train", job_path, overrides, debug, as_of)


@app.command()
def report(job_path: JobPath, overrides: Overrides = None, as_of: AsOf = None, debug: Debug = False) -> None:
    """Write the report of the newest features again."""
    _stage("report", job_path, overrides, debug, as_of)


def load(path: Path, overrides: list[str] | None) -> Job:
    """The job file, with its overrides; paths resolved."""
    from barycenter.infra.job.loader import load_job

    return load_job(path, overrides or [])


def day(as_of: str | None) -> date | None:
    """The day of ``--as-of``.

    Raises:
        JobError: The text is no date.
    """
    if as_of is None:
        return None
    if (parsed := parse_date(as_of)) is None:
        raise JobError("--as-of", f"must be a date such as 2024-01-31, not {as_of!r}")
    return parsed


def _prepare(job: Job, **flags: "Unpack[Flags]") -> "Run":
    from barycenter.tasks.planning.plan import prepare

    return prepare(job, **flags)


def _hand_over(run: "Run") -> None:
    from barycenter.tasks.planning.plan import hand_over

    hand_over(run)


def _left(prepared: "Run") -> "Left | None":
    """What a run has yet to do; None where nothing is committed, so that nothing more is imported before Ray starts."""
    if not prepared.after:
        return None
    from barycenter.tasks.pipeline import look_at

    return look_at(prepared)


def _finished(job: Job, flags: "Flags") -> dict[str, Any] | None:
    """The report of a run with nothing to do, which no server that outlasts it shows; None where there is work."""
    from barycenter.flows import story
    from barycenter.fusion.errors import BusyError
    from barycenter.tasks.pipeline import look_at, run_job
    from barycenter.tasks.planning.plan import hand_over, held

    try:
        with held(job, **flags) as run:
            left = look_at(run)
            if left.nothing:
                with story.workers_for(run, left) as cluster:
                    return run_job(run, cluster)
    except BusyError:
        return None  # the flow says so, and ends as the job asks
    hand_over(run)
    return None


def _note(prepared: "Run") -> None:
    """Says before the work what the target was taken for, what is left out of it, and which keys are not used."""
    from barycenter.tasks.data.targets import inspect_target
    from barycenter.tasks.planning.plan import listing_line, notes

    target = inspect_target(prepared).said() if prepared.job.train is not None else None
    for line in [*filter(None, [listing_line(prepared), target]), *notes(prepared)]:
        print_line(line)


def _quiet(debug: bool) -> None:
    """The command reports errors itself, in one line; what Prefect says is for the page of the run."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO" if debug else "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "ERROR" if debug else "CRITICAL")


def _stage(
    name: str, path: Path, overrides: list[str] | None, debug: bool, date_text: str | None, **flags: "Unpack[Flags]"
) -> None:
    with report_errors(debug):
        job = load(path, overrides)
        flags["as_of"] = day(date_text)
        _quiet(debug)
        with PrefectServer() as server:
            _hand_over(_prepare(job, **flags))
            workers = name in ("embed", "align", "fuse")
            result = run_flow("barycenter.flows.stages", name, job, server, workers=workers, **flags)
        if name == "report" or result is None:
            _show_report(job, result)
        else:
            out.print_json(json.dumps(result, default=str))


def _show_plan(job: Job, prepared: "Run", hourly_price: float | None) -> None:
    from barycenter.infra.job.loader import dump_job
    from barycenter.tasks.planning.plan import deadline_line, describe_plan, listing_line
    from barycenter.tasks.planning.space import space_line

    out.print(dump_job(job), markup=False, highlight=False, soft_wrap=True)
    plan = describe_plan(prepared)
    title = f"{counted(plan['rows'], 'row')} in {counted(plan['shards'], 'shard')} of {counted(plan['files'], 'file')}"
    table = Table(title=title + ("; the inputs' own tables are yet to be joined to them" if plan["unjoined"] else ""))
    for column in (
        "input",
        "encoder id",
        "width",
        "shards done",
        "shards left",
        "rows left",
        "known",
        "estimated time",
    ):
        table.add_column(column, justify="left" if column in ("input", "encoder id") else "right")
    for name, figures in plan["inputs"].items():
        seconds = figures["seconds_left"]
        table.add_row(
            name,
            figures["encoder_id"][:12],
            str(figures["dim"]),
            f"{figures['shards_done']:,}",
            f"{figures['shards_left']:,}",
            f"{figures['rows_left']:,}",
            f"{figures['rows_known']:,}",
            "not measured yet" if seconds is None else f"{seconds:,.0f} s",
        )
    out.print(table)
    for line in [*filter(None, [listing_line(prepared), plan["target"]]), *plan["notes"]]:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.print(space_line(plan["space"]), markup=False, highlight=False, soft_wrap=True)
    if (left := _left(prepared)) is not None and (line := left.said()) is not None:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    total = plan["seconds_left"]
    if total is None:
        out.print("time left: not measured yet; an interrupted or finished run measures its rates")
        return
    cost = "" if hourly_price is None else f", about {total / 3600 * hourly_price:,.2f} at {hourly_price:,.2f} an hour"
    out.print(f"time left: about {total:,.0f} s by the rates last measured here{cost}")
    if (line := deadline_line(job, total)) is not None:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _rejects(folder: str, result: dict[str, Any]) -> list[str]:
    """A line that says where the bad inputs are; none without any."""
    bad = sum(result.get("rows", {}).get("bad", {}).values())
    what = "1 missing or bad input" if bad == 1 else f"{bad:,} missing or bad inputs, a row each"
    return [f"rejects   {folder}/rejects/{result['version']}: {what}"] if bad else []


def _show_report(job: Job, result: dict[str, Any] | None) -> None:
    """The report of a run; nothing of one that was skipped."""
    if result is None:
        return
    from barycenter.infra.storage import Storage
    from barycenter.infra.versions.commit import shown_version
    from barycenter.infra.versions.manifests import manifest_path
    from barycenter.tasks.report.rendering import terminal_table

    out.print(terminal_table(result))
    folder, number = job.output.path.rstrip("/"), result["lineage"]["number"]
    seen = shown_version(Storage(job.output.path, job.storage.endpoint_url)) == number
    lines = [
        f"features  {folder}/features/{result['version']}",
        f"manifest  {folder}/{'manifest.json' if seen else manifest_path(number)}",
        *([] if seen else [f"readers see it after `barycenter promote {shlex.quote(folder)} {number}`"]),
        *_rejects(folder, result),
        f"report    {folder}/report/report.html",
    ]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)
