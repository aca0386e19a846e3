"""Commands on what a run left behind: inspect, promote, rollback, pin, gc, erase."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from barycenter.flows.console import Busy, Debug, EndpointUrl, Folder, app, out, report_errors
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.words import counted

if TYPE_CHECKING:
    from barycenter.infra.versions.erasure import Traces


@app.command()
def inspect(
    folder: Folder,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file against the manifest.")] = False,
    versions: Annotated[bool, typer.Option("--versions", help="List the versions.")] = False,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """What a fused data set holds: versions, rows, schema, lineage."""
    with report_errors(debug):
        from barycenter.infra.storage import Storage
        from barycenter.infra.versions import history as kept
        from barycenter.infra.versions.commit import shown_version
        from barycenter.infra.versions.garbage import pinned_versions
        from barycenter.infra.versions.manifests import read_manifest
        from barycenter.infra.versions.manifests import verify as problems_of
        from barycenter.infra.versions.manifests import versions as all_versions

        storage = Storage(folder, endpoint_url)
        if versions:
            _show_versions(folder, kept.history(storage), shown_version(storage), pinned_versions(storage))
        if versions and not verify:
            return
        manifest = read_manifest(storage)
        _show_manifest(folder, manifest, all_versions(storage)[-1])
        if verify:
            problems = problems_of(storage, manifest)
            for problem in problems:
                out.print(problem, markup=False, soft_wrap=True)
            if problems:
                raise RunError(
                    f"{counted(len(problems), 'file')} not as in the manifest; run the job again to repair them"
                )
            out.print(f"{counted(len(manifest.files), 'file')} as in the manifest")


@app.command()
def promote(
    folder: Folder,
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="Number of the version; default: the newest.")
    ] = None,
    busy: Busy = "wait",
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """Make a version the one that readers see."""
    with report_errors(debug):
        _promote(folder, version, busy, endpoint_url)


@app.command()
def rollback(
    folder: Folder,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version, as in --versions.")],
    busy: Busy = "wait",
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """Make an older version the one that readers see, until another is committed; those after it stay until gc."""
    with report_errors(debug):
        _promote(folder, version, busy, endpoint_url)


def _promote(folder: str, version: int | None, busy: Busy, endpoint_url: str | None) -> None:
    from barycenter.infra.storage import Storage
    from barycenter.infra.versions.commit import promote_version
    from barycenter.infra.versions.lease import hold
    from barycenter.infra.versions.manifests import newest_manifest, read_manifest

    storage = Storage(folder, endpoint_url)
    newest = newest_manifest(storage)
    wanted = read_manifest(storage, version if version is not None or newest is None else newest.number)
    with hold(storage, f"promotion of version {version or 'the newest'}", busy=busy) as lease:
        if version is None and (newest := newest_manifest(storage)) is not None:
            wanted = newest  # others may have committed while this waited
        promote_version(storage, wanted.number, lease)
    out.print(f"readers see version {wanted.number}: {wanted.version}")


@app.command()
def pin(
    folder: Folder,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Number of the version, as in --versions.")],
    remove: Annotated[bool, typer.Option("--remove", help="Leave the version to gc again.")] = False,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """Keep a version from gc, for as long as a training reads it."""
    with report_errors(debug):
        from barycenter.infra.storage import Storage
        from barycenter.infra.versions.garbage import pin_version, unpin_version

        storage = Storage(folder, endpoint_url)
        (unpin_version if remove else pin_version)(storage, version)
        out.print(f"version {version} is {'not pinned' if remove else 'pinned'}")


@app.command()
def gc(
    folder: Folder,
    keep: Annotated[
        int, typer.Option(min=1, help="How many of the newest versions to keep; from one there is no way back.")
    ] = 1,
    keep_days: Annotated[float | None, typer.Option(min=0, help="Keep the versions of so many last days, too.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be deleted.")] = False,
    busy: Busy = "wait",
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """Delete what no kept version refers to: neither the newest, nor what readers see, nor a pinned one."""
    with report_errors(debug):
        from barycenter.infra.storage import Storage
        from barycenter.infra.versions.garbage import check_collectable, collect_garbage, find_garbage
        from barycenter.infra.versions.lease import hold

        storage = Storage(folder, endpoint_url)
        check_collectable(storage, keep)  # before an output that is none gets a lease
        if dry_run:
            removed = find_garbage(storage, keep, keep_days).paths
        else:
            with hold(storage, "gc", busy=busy, deletes=True) as lease:
                removed = collect_garbage(storage, lease, keep, keep_days)
        for path in removed:
            out.print(path, markup=False, soft_wrap=True)
        out.print(f"{counted(len(removed), 'file')} {'would be deleted' if dry_run else 'deleted'}")


@app.command()
def erase(
    folder: Folder,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys of the rows.")],
    pinned: Annotated[bool, typer.Option("--pinned", help="Delete pinned versions that hold a row, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show where the rows are; change nothing.")] = False,
    busy: Busy = "wait",
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """Take rows out of everything that the output holds, older versions included."""
    with report_errors(debug):
        from barycenter.infra.storage import Storage
        from barycenter.infra.versions.erasure import check_erasable, erase_rows, find_traces
        from barycenter.infra.versions.lease import hold

        storage = Storage(folder, endpoint_url)
        traces = find_traces(storage, keys)
        check_erasable(storage, traces, pinned=pinned)  # before an output that holds no such row gets a lease
        if dry_run:
            _show_traces(traces)
            out.print("nothing was erased", markup=False)
            return
        with hold(storage, "erase", busy=busy, deletes=True) as lease:
            erased = erase_rows(storage, lease, keys, pinned=pinned)
        _show_traces(erased.traces)
        if erased.committed is not None:
            manifest = erased.committed
            out.print(f"version {manifest.number} is without them: {manifest.version}", markup=False)
        out.print(
            f"{counted(len(erased.deleted), 'file')} deleted; the next run trains the head and writes the report anew"
        )
        _show_what_stays(erased.traces, storage.is_local)


def _show_traces(traces: "Traces") -> None:
    """Where the rows are, or were."""
    held = ", ".join(map(str, traces.versions)) or "none"
    rows = sum(map(len, traces.embeddings.values()))
    vectors, files = counted(rows, "vector"), counted(len(traces.embeddings), "embedding file")
    out.print(f"{vectors} in {files}; in the versions: {held}", markup=False)
    for path in sorted(traces.embeddings):
        out.print(path, markup=False, soft_wrap=True)


def _show_what_stays(traces: "Traces", local: bool) -> None:
    """What an output cannot erase."""
    for key, places in traces.sources.items():
        named = ", ".join(places[:10]) + (", ..." if len(places) > 10 else "")
        line = f"{key}: still in {named}, unless it was removed there: remove it there, or the next run writes it again"
        out.print(line, markup=False, soft_wrap=True)
    out.print(
        "not touched: alignments, which are sums over many rows; outputs that took vectors over from this one "
        "(output.reuse); artifacts of earlier runs in Prefect"
        + ("" if local else "; earlier versions of the objects, if the bucket keeps them"),
        markup=False,
        soft_wrap=True,
    )


def _show_manifest(folder: str, manifest: Manifest, newest: int) -> None:
    table = Table(title=folder, show_header=False)
    rows = manifest.rows
    facts = {
        "version": f"{manifest.version} (version {manifest.number}, the newest is {newest})",
        "rows": f"{rows['written']:,} written, {rows['rejected']:,} rejected of {rows['read']:,}",
        "missing": ", ".join(f"{name} {count:,}" for name, count in rows["missing"].items()),
        "missing or bad": _bad_inputs(manifest),
        "files": f"{len(manifest.files):,}, {sum(file.bytes for file in manifest.files) / 1e6:,.1f} MB",
        "fused": f"{manifest.dim} x {manifest.dtype}",
        "alignment": f"{manifest.alignment['method']} {manifest.alignment_id}",
        "average": manifest.average["method"],
    }
    facts |= {
        f"input {name}": f"{entry['encoder'] or 'the vectors as they are'} ({entry['dim']}), {entry['encoder_id']}"
        for name, entry in manifest.inputs.items()
    }
    facts |= _lineage(manifest)
    for name, value in facts.items():
        table.add_row(name, value)
    out.print(table)


def _bad_inputs(manifest: Manifest) -> str:
    """Bad inputs by reason, and where each is a row."""
    counts = ", ".join(
        f"{reason.replace('_', ' ')} {count:,}" for reason, count in manifest.rows.get("bad", {}).items()
    )
    return f"{counts}; in rejects/{manifest.version}" if counts else "none"


def _show_versions(folder: str, manifests: list[Manifest], shown: int | None, pinned: list[int]) -> None:
    table = Table(title=folder)
    for column in ("version", "features", "rows", "rejected", "files", "alignment", "built on", "remarks"):
        table.add_column(column, justify="right" if column in ("version", "rows", "rejected", "files") else "left")
    for manifest in manifests:
        rows, number = manifest.rows, manifest.number
        table.add_row(
            str(number),
            manifest.version,
            f"{rows['written']:,}",
            f"{rows['rejected']:,}",
            f"{len(manifest.files):,}",
            manifest.alignment_id,
            str(manifest.parent or ""),
            ", ".join(["readers see it"] * (number == shown) + ["pinned"] * (number in pinned)),
        )
    out.print(table)


def _lineage(manifest: Manifest) -> dict[str, str]:
    """What the version was made from, and by what."""
    sources = manifest.sources
    named = ", ".join(source["relative"] for source in sources[:5]) + (", ..." if len(sources) > 5 else "")
    rows = counted(sum(source["rows"] for source in sources), "row")
    shards = counted(len(manifest.shards), "shard")
    return {
        "sources": f"{counted(len(sources), 'file')}, {rows} in {shards}: {named}",
        "built on": f"version {manifest.parent}" if manifest.parent else "nothing before",
        "made by": f"job {manifest.job}, barycenter {manifest.code}",
    }
