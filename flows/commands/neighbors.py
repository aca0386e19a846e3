"""The command that looks up nearest rows by fused vector."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from barycenter.flows.console import Debug, EndpointUrl, Folder, app, out, report_errors
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import JobError, RunError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from barycenter.infra.storage import Storage

_WIDEST = 60


@app.command()
def neighbors(
    folder: Folder,
    key: Annotated[str | None, typer.Option(metavar="K", help="Rows nearest to the row of this key.")] = None,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="Rows nearest to this text.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="Rows nearest to this picture.")] = None,
    of_input: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME", help="Which input the text or picture is, where several could be."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many rows.")] = 10,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the FAISS index there, its keys beside it.")
    ] = None,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """The rows nearest to a row, a text or a picture by cosine similarity of fused vectors."""
    with report_errors(debug):
        if key is not None and (text is not None or image is not None):
            raise JobError("--key", "give either a key, or a text, a picture or both")
        if key is None and text is None and image is None and export is None:
            raise JobError("--key", "nothing to look for; give --key, --text or --image (or --export FILE)")
        from barycenter.infra.storage import Storage
        from barycenter.infra.versions.manifests import read_manifest
        from barycenter.tasks.data.neighbors import open_neighborhood

        storage = Storage(folder, endpoint_url)
        manifest = read_manifest(storage)
        there = open_neighborhood(storage, manifest)
        if key is not None:
            _show(there.of_key(key, top))
        elif text is not None or image is not None:
            _show(there.of_vector(_encoded(storage, manifest, text, image, of_input or []), top))
        if export is not None:
            _export(export, there.index.to_bytes(), there.rows)


def _encoded(
    storage: "Storage", manifest: Manifest, text: str | None, image: Path | None, of_input: list[str]
) -> "NDArray[np.floating]":
    """(dim,) the fused vector of a text, a picture or both; what is not given counts as missing."""
    if unknown := [name for name in of_input if name not in manifest.inputs]:
        raise JobError("--input", f"no input {unknown[0]!r}; the inputs are {', '.join(manifest.inputs)}")
    values: dict[str, list[Any]] = {}
    if text is not None:
        values[_only_input(manifest, "text", of_input)] = [text]
    if image is not None:
        try:
            values[_only_input(manifest, "image", of_input)] = [image.read_bytes()]
        except OSError as error:
            raise JobError("--image", f"{image} cannot be read ({error.strerror}); give a picture") from error
    from barycenter.tasks.data.new_rows import load_fuser

    vector: NDArray[np.floating] = load_fuser(storage, manifest).encode(values)[0]
    if vector[0] != vector[0]:
        raise JobError(f"--{'text' if image is None else 'image'}", "nothing in it could be encoded; see what it holds")
    return vector


def _only_input(manifest: Manifest, kind: str, of_input: list[str]) -> str:
    """The input of a kind: the one that was named, or the only one."""
    names = [name for name, entry in manifest.inputs.items() if entry["kind"] == kind]
    named = [name for name in names if name in of_input] or names
    if not named:
        raise JobError(f"--{kind}", f"this data set has no {kind} input; look up by --key")
    if len(named) > 1:
        raise JobError(f"--{kind}", f"this data set has several {kind} inputs; name one by --input: {', '.join(named)}")
    return str(named[0])


def _show(rows: "pa.Table") -> None:
    table = Table(box=None, pad_edge=False)
    for name in rows.column_names:
        table.add_column(Text(name), justify="right" if name == "similarity" else "left", overflow="fold")
    for row in rows.to_pylist():
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    out.print(table)


def _cell(value: object) -> str:
    from barycenter.tasks.report.rendering.facts import clean

    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else clean(value, _WIDEST)


def _export(path: Path, index: bytes, rows: "pa.Table") -> None:
    import pyarrow.parquet as pq

    keys = path.with_suffix(".keys.parquet")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(index)
        pq.write_table(rows, keys)
    except OSError as error:
        raise RunError(f"--export {path}: {error.strerror or error}") from error
    out.print(f"index     {path}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"keys      {keys}", markup=False, highlight=False, soft_wrap=True)
