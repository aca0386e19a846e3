"""The command line: `barycenter run JOB.yaml` and its companions."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fusion.errors import JobError, RunError
from infra.job import Job

if TYPE_CHECKING:
    from tasks.run import Run

app = typer.Typer(
    name="barycenter",
    help="Embed paired text and pictures, align the spaces, average them: one fused vector a row.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console()

JobPath = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one key of the job file.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def run(
    job_path: JobPath,
    overrides: Overrides = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be done; start nothing.")] = False,
    retry_bad: Annotated[
        bool, typer.Option("--retry-bad", help="Embed again the shards that held bad inputs.")
    ] = False,
    recheck: Annotated[bool, typer.Option("--recheck", help="Embed again what refers to changed pictures.")] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Fit the alignment again.")] = False,
    debug: Debug = False,
) -> None:
    """The whole job: embed, align, fuse, train, report."""
    with _told(debug):
        job = _load(job_path, overrides)
        prepared = _prepare(job, retry_bad=retry_bad, recheck=recheck, refit=refit)
        if plan:
            _show_plan(job, prepared)
            return
        _quiet(debug)
        from flows.pipeline import pipeline

        _show_report(job, pipeline(job, recheck=recheck, retry_bad=retry_bad, refit=refit))


@app.command()
def demo(
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where corpus and results go.")] = Path(
        "out/demo"
    ),
    debug: Debug = False,
) -> None:
    """The main job on a generated corpus with built-in encoders; no network, no weights."""
    with _told(debug):
        from infra.demo import demo_job, write_demo_corpus

        corpus = write_demo_corpus(out_dir.resolve() / "corpus")
        job = Job.model_validate(demo_job(corpus, out_dir.resolve() / "features"))
        _prepare(job)
        _quiet(debug)
        from flows.pipeline import pipeline

        _show_report(job, pipeline(job))


@app.command()
def embed(
    job_path: JobPath, overrides: Overrides = None, retry_bad: bool = False, recheck: bool = False, debug: Debug = False
) -> None:
    """Embed what is missing of every input."""
    _stage("embed", job_path, overrides, debug, retry_bad=retry_bad, recheck=recheck)


@app.command()
def align(job_path: JobPath, overrides: Overrides = None, refit: bool = False, debug: Debug = False) -> None:
    """Fit the alignment on finished embeddings."""
    _stage("align", job_path, overrides, debug, refit=refit)


@app.command()
def fuse(job_path: JobPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Write and commit the fused features."""
    _stage("fuse", job_path, overrides, debug)


@app.command()
def train(job_path: JobPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Train the head on the newest features."""
    _stage("train", job_path, overrides, debug)


@app.command()
def report(job_path: JobPath, overrides: Overrides = None, debug: Debug = False) -> None:
    """Write the report of the newest features again."""
    _stage("report", job_path, overrides, debug)


@app.command()
def inspect(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The output of a run.")],
    verify: Annotated[bool, typer.Option("--verify", help="Check every file against the manifest.")] = False,
    endpoint_url: Annotated[str | None, typer.Option(help="S3-compatible server.")] = None,
    debug: Debug = False,
) -> None:
    """What a fused data set holds: versions, rows, schema, lineage."""
    with _told(debug):
        from infra.commit import read_manifest
        from infra.commit import verify as problems_of
        from infra.storage import Storage

        storage = Storage(folder, endpoint_url)
        manifest = read_manifest(storage)
        _show_manifest(folder, manifest, storage.list("manifests"))
        if verify:
            problems = problems_of(storage, manifest)
            for problem in problems:
                out.print(problem, markup=False, soft_wrap=True)
            if problems:
                raise RunError(f"{len(problems)} file(s) differ from the manifest; run the job again to repair them")
            out.print(f"{len(manifest['files'])} file(s) match the manifest")


@app.command()
def gc(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The output of a run.")],
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted.")] = False,
    endpoint_url: Annotated[str | None, typer.Option(help="S3-compatible server.")] = None,
    debug: Debug = False,
) -> None:
    """Delete what no kept version refers to."""
    with _told(debug):
        from infra.commit import collect_garbage
        from infra.storage import Storage

        removed = collect_garbage(Storage(folder, endpoint_url), keep, dry_run)
        for path in removed:
            out.print(path, markup=False, soft_wrap=True)
        out.print(f"{len(removed)} file(s) {'would be deleted' if dry_run else 'deleted'}")


def main() -> None:
    """Entry point of the command."""
    app()


@contextmanager
def _told(debug: bool) -> Iterator[None]:
    """Turns errors into one line on stderr and the exit code: 2 for the job file, 1 for a failed run."""
    try:
        yield
    except JobError as error:
        _fail(str(error), 2, debug)
    except RunError as error:
        _fail(str(error), 1, debug)
    except KeyboardInterrupt:
        _fail("interrupted; run again to go on where this stopped", 1, debug)
    except Exception as error:  # noqa: BLE001  (the command line's last line of defence; --debug shows all)
        detail = " ".join(str(error).split())[:300]
        _fail(f"unexpected {type(error).__name__}: {detail}; --debug shows the traceback", 1, debug)


def _fail(line: str, code: int, debug: bool) -> None:
    if debug:
        raise
    print(f"barycenter: {line}", file=sys.stderr)
    raise typer.Exit(code) from None


def _load(path: Path, overrides: list[str] | None) -> Job:
    from infra.jobfile import load_job

    return load_job(path, overrides or [])


def _prepare(job: Job, **flags: bool) -> "Run":
    import flows.environment  # noqa: F401
    from tasks.plan import prepare

    return prepare(job, **flags)


def _quiet(debug: bool) -> None:
    """The command tells errors itself, in one line; Prefect's own log would tell them twice."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if debug else "CRITICAL")


def _stage(name: str, path: Path, overrides: list[str] | None, debug: bool, **flags: bool) -> None:
    with _told(debug):
        job = _load(path, overrides)
        _prepare(job, **flags)
        _quiet(debug)
        from flows import stages

        stage: Callable[..., dict[str, Any]] = getattr(stages, name)
        result = stage(job, **flags)
        if name == "report":
            _show_report(job, result)
        else:
            out.print_json(json.dumps(result, default=str))


def _show_plan(job: Job, prepared: "Run") -> None:
    from infra.jobfile import dump_job
    from tasks.plan import describe_plan

    out.print(dump_job(job), markup=False, highlight=False, soft_wrap=True)
    plan = describe_plan(prepared)
    table = Table(title=f"{plan['rows']:,} rows in {plan['shards']:,} shards of {plan['files']:,} file(s)")
    for column in ("input", "encoder id", "width", "shards done", "shards left", "rows left", "about"):
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
            "not measured yet" if seconds is None else f"{seconds:,.0f} s",
        )
    out.print(table)


def _show_report(job: Job, result: dict[str, Any]) -> None:
    from tasks.rendering import terminal_table

    out.print(terminal_table(result))
    folder = job.output.path.rstrip("/")
    out.print(f"features  {folder}/features/{result['version']}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"manifest  {folder}/manifest.json", markup=False, highlight=False, soft_wrap=True)
    out.print(f"report    {folder}/report/report.html", markup=False, highlight=False, soft_wrap=True)


def _show_manifest(folder: str, manifest: dict[str, Any], versions: list[str]) -> None:
    table = Table(title=folder, show_header=False)
    rows = manifest["rows"]
    facts = {
        "version": f"{manifest['version']} (manifest {manifest['number']} of {len(versions)})",
        "rows": f"{rows['written']:,} written, {rows['rejected']:,} rejected of {rows['read']:,}",
        "missing": ", ".join(f"{name} {count:,}" for name, count in rows["missing"].items()),
        "files": f"{len(manifest['files']):,}, {sum(file['bytes'] for file in manifest['files']) / 1e6:,.1f} MB",
        "fused": f"{manifest['dim']} x {manifest['dtype']}",
        "alignment": f"{manifest['alignment']['method']} {manifest['alignment_id']}",
        "average": manifest["average"]["method"],
    }
    facts |= {f"input {name}": f"{entry['encoder']} ({entry['dim']})" for name, entry in manifest["inputs"].items()}
    facts["sources"] = ", ".join(source["relative"] for source in manifest["sources"][:5])
    for name, value in facts.items():
        table.add_row(name, value)
    out.print(table)


if __name__ == "__main__":
    main()
