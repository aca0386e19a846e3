"""Commands on trained heads: predict."""

import json
from contextlib import nullcontext
from typing import Annotated

import typer

from barycenter.flows.console import Debug, EndpointUrl, Folder, app, out, report_errors


@app.command()
def predict(
    folder: Folder,
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="KIND|DIR", help="Which head, where there are several, or its folder."),
    ] = None,
    out_path: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Parquet file to write; default: beside the head.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Number of a version; default: the newest.")] = None,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """The trained head over every row of a fused data set; predictions to Parquet."""
    with report_errors(debug):
        import barycenter.flows.environment  # noqa: F401
        from barycenter.infra.storage import Storage
        from barycenter.infra.versions.lease import hold
        from barycenter.infra.versions.manifests import read_manifest
        from barycenter.tasks.heads.predict import default_path, find_head
        from barycenter.tasks.heads.predict import predict as predict_rows

        storage = Storage(folder, endpoint_url)
        manifest = read_manifest(storage, version)
        if head is not None and "/" in head:
            trained, inside = Storage(head, endpoint_url), ""
        else:
            trained, inside = storage, find_head(storage, manifest.version, head)
        sink, path = storage, default_path(inside or f"head/{manifest.version}/predicted")
        if out_path is not None:
            parent, _, path = out_path.rpartition("/")
            sink = Storage(parent or ("/" if out_path.startswith("/") else "."), endpoint_url)
        with hold(storage, "predict") if sink is storage else nullcontext():
            figures = predict_rows(storage, manifest, (trained, inside), sink, path)
        out.print_json(json.dumps(figures))
