"""Commands on what a run left behind: inspect, gc."""

from typing import Annotated, Any

import typer
from rich.table import Table

from flows.console import Debug, EndpointUrl, Folder, app, out, told
from fusion.errors import RunError


@app.command()
def inspect(
    folder: Folder,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file against the manifest.")] = False,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """What a fused data set holds: versions, rows, schema, lineage."""
    with told(debug):
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
    folder: Folder,
    keep: Annotated[int, typer.Option(min=1, help="Versions to keep.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted.")] = False,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """Delete what no kept version refers to."""
    with told(debug):
        from infra.commit import collect_garbage
        from infra.storage import Storage

        removed = collect_garbage(Storage(folder, endpoint_url), keep, dry_run)
        for path in removed:
            out.print(path, markup=False, soft_wrap=True)
        out.print(f"{len(removed)} file(s) {'would be deleted' if dry_run else 'deleted'}")


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
    facts |= {
        f"input {name}": f"{entry['encoder'] or 'the vectors as they are'} ({entry['dim']}), {entry['encoder_id']}"
        for name, entry in manifest["inputs"].items()
    }
    facts |= _lineage(manifest)
    for name, value in facts.items():
        table.add_row(name, value)
    out.print(table)


def _lineage(manifest: dict[str, Any]) -> dict[str, str]:
    """What the version was made from, and by what."""
    sources = manifest["sources"]
    named = ", ".join(source["relative"] for source in sources[:5]) + (", ..." if len(sources) > 5 else "")
    read = sum(source["rows"] for source in sources)
    return {
        "sources": f"{len(sources):,} file(s), {read:,} rows in {len(manifest['shards']):,} shard(s): {named}",
        "built on": f"version {manifest['parent']}" if manifest.get("parent") else "nothing before",
        "made by": f"job {manifest['job']}, barycenter {manifest['code']}",
    }
