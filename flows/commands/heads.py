"""Commands on trained heads and on new rows: predict, encode."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barycenter.flows.console import Debug, EndpointUrl, Folder, app, out, report_errors

if TYPE_CHECKING:
    from barycenter.fusion.dataset.schema import Manifest
    from barycenter.infra.storage import Storage
    from barycenter.tasks.data.new_rows import NewRows

_ON = typer.Option("--on", metavar="FILE", help="New rows: file, folder, glob or URI; any input may be missing.")
Version = Annotated[int | None, typer.Option(help="Number of a version; default: the newest.")]
Http = Annotated[bool, typer.Option("--http", help="With --on: pictures may be fetched by http(s).")]
Outside = Annotated[bool, typer.Option("--outside-corpus", help="With --on: paths may leave the folder of the rows.")]


@app.command()
def predict(
    folder: Folder,
    on: Annotated[str | None, _ON] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="KIND|DIR", help="Which head, where there are several, or its folder."),
    ] = None,
    out_path: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="Parquet file to write; default: beside the head, of new rows in this folder."
        ),
    ] = None,
    http: Http = False,
    outside_corpus: Outside = False,
    version: Version = None,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """The trained head over every row of a fused data set, or over new rows; predictions to Parquet."""
    with report_errors(debug):
        import barycenter.flows.environment  # noqa: F401
        from barycenter.infra.storage import Storage
        from barycenter.infra.versions.lease import hold
        from barycenter.infra.versions.manifests import read_manifest
        from barycenter.tasks.heads.predict import default_path, find_head, predict_new
        from barycenter.tasks.heads.predict import predict as predict_rows

        storage = Storage(folder, endpoint_url)
        manifest = read_manifest(storage, version)
        trained, inside = find_head(storage, manifest.version, head)
        if on is not None:
            sink, path = _sink_of_new(on, out_path, "predictions", endpoint_url)
            rows = _new_rows(storage, manifest, on, http, outside_corpus)
            figures = predict_new(rows, manifest, (trained, inside), sink, path)
            _note(rows)
        elif out_path is not None:
            figures = predict_rows(storage, manifest, (trained, inside), *_sink(out_path, endpoint_url))
        else:
            with hold(storage, "predict"):
                path = default_path(inside or f"head/{manifest.version}/predicted")
                figures = predict_rows(storage, manifest, (trained, inside), storage, path)
        _show(figures, "predictions", f"head         {figures['head']}, {figures['task']}")


@app.command()
def encode(
    folder: Folder,
    on: Annotated[str, _ON],
    out_path: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Parquet file to write; default: in this folder.")
    ] = None,
    http: Http = False,
    outside_corpus: Outside = False,
    version: Version = None,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """The fused vectors of new rows, as the job would have written them; to Parquet."""
    with report_errors(debug):
        import barycenter.flows.environment  # noqa: F401
        from barycenter.infra.storage import Storage
        from barycenter.infra.versions.manifests import read_manifest
        from barycenter.tasks.fuse.new_rows import encode_new

        storage = Storage(folder, endpoint_url)
        manifest = read_manifest(storage, version)
        sink, path = _sink_of_new(on, out_path, "fused", endpoint_url)
        rows = _new_rows(storage, manifest, on, http, outside_corpus)
        figures = encode_new(rows, sink, path)
        _note(rows)
        _show(figures, "vectors", f"dim          {manifest.dim}")


def _new_rows(storage: "Storage", manifest: "Manifest", on: str, http: bool, outside_corpus: bool) -> "NewRows":
    from barycenter.infra.job.models import LimitsJob
    from barycenter.infra.job.paths import resolve_path
    from barycenter.tasks.data.new_rows import NewRows, load_fuser

    limits = LimitsJob(http=http, outside_corpus=outside_corpus)
    path = resolve_path(on, Path.cwd())
    return NewRows(load_fuser(storage, manifest), path, limits=limits, endpoint_url=storage.endpoint_url)


def _sink(path: str, endpoint_url: str | None) -> "tuple[Storage, str]":
    """The storage that a file lies in, and its name there."""
    from barycenter.infra.storage import Storage

    parent, _, name = path.rpartition("/")
    return Storage(parent or ("/" if path.startswith("/") else "."), endpoint_url), name


def _sink_of_new(on: str, path: str | None, what: str, endpoint_url: str | None) -> "tuple[Storage, str]":
    """Where what is made of new rows goes: never where they are read from.

    Raises:
        JobError: On ``--out``.
    """
    from barycenter.fusion.errors import JobError
    from barycenter.infra.corpus.overlap import check_output_outside_corpus
    from barycenter.infra.job.paths import resolve_path

    rows = resolve_path(on, Path.cwd())
    name = rows.rstrip("/").rpartition("/")[2].partition(".")[0].strip("*?[] ") or "new"
    path = path if path is not None else f"{name}.{what}.parquet"
    try:
        check_output_outside_corpus(rows, resolve_path(path, Path.cwd()))
    except JobError as error:
        raise JobError("--out", error.problem.replace("the corpus", "the rows")) from None
    return _sink(path, endpoint_url)


def _note(rows: "NewRows") -> None:
    for line in rows.tally.lines():
        print(line, file=sys.stderr, flush=True)


def _show(figures: dict[str, Any], what: str, line: str) -> None:
    path = figures["path"]
    for each in (f"rows         {figures['rows']:,}", line, f"{what:<12} {path}"):
        out.print(each, markup=False, highlight=False, soft_wrap=True)
