"""Erasure: rows are taken out of everything that an output holds, and a version without them is committed.

In this order, so that a process killed anywhere leaves what the next erasure of the same rows completes, and so that
readers miss no file: a note of what is erased; embeddings, features and rejects without the rows, beside the old ones;
the commit; then everything that holds the rows is deleted, manifests first, the embeddings that they are found by last.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage.storage import MissingFileError, Storage
from barycenter.infra.versions.commit import (
    commit_manifest,
    fence,
    follow_promotions,
    make_versions_last,
    shown_version,
)
from barycenter.infra.versions.digest_index import FOLDER
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.infra.versions.erased_files import (
    ERASED,
    clean_report,
    clean_samples,
    hashed,
    rows_of,
    write_embeddings_without,
    write_version_without,
)
from barycenter.infra.versions.garbage import needed_paths, pinned_versions, unpin_version, while_held
from barycenter.infra.versions.lease import Lease
from barycenter.infra.versions.manifests import (
    COLLECTED,
    deleted_versions,
    manifest_path,
    numbers_taken,
    read_manifest,
    versions,
)

NOTE = "erasing.json"
"""While rows are taken out, hashes of their keys; gone once that is complete."""

_OF_VERSIONS = ("corpus/", "features/", "rejects/", "head/", "index/")
_READERS = 16


@dataclass(frozen=True)
class Traces:
    """Where an output holds some rows.

    Attributes:
        keys: Their keys.
        missing: Those of the keys that are nowhere.
        embeddings: {embedding file: its rows, each with its key}.
        lengths: {embedding file: how many rows it has}, of every embedding file.
        versions: Numbers of the versions that hold any of them, ascending.
        pinned: Those of them that are pinned.
        sources: {key: files of the corpus that it was read from, as far as that is known}.
    """

    keys: tuple[str, ...]
    missing: tuple[str, ...]
    embeddings: dict[str, list[tuple[int, str]]]
    lengths: dict[str, int]
    versions: tuple[int, ...]
    pinned: tuple[int, ...]
    sources: dict[str, list[str]]


@dataclass(frozen=True)
class Erasure:
    """What came of an erasure.

    Attributes:
        traces: Where the rows were.
        committed: The version without them; None where the one that readers see had none of them.
        deleted: Paths of what was deleted, sorted.
    """

    traces: Traces
    committed: Manifest | None
    deleted: tuple[str, ...]


def find_traces(storage: Storage, keys: Collection[str]) -> Traces:
    """Looks for rows in the embeddings, features and rejects of an output; writes nothing.

    Raises:
        RunError: Nothing is committed, or a file cannot be read.
    """
    wanted = tuple(dict.fromkeys(keys))
    if not versions(storage):
        raise RunError(f"{storage.uri()}: nothing has been committed here; delete the folder to erase what a run left")
    embeddings, lengths = _find_embeddings(storage, wanted)
    seen = {key for rows in embeddings.values() for _, key in rows}
    asked: dict[str, set[str]] = {}
    holders = []
    for number in versions(storage):
        manifest = read_manifest(storage, number)
        columns = {file.path: manifest.key for file in manifest.files} | dict.fromkeys(manifest.rejects, "key")
        new = [path for path in columns if path not in asked]
        with ThreadPoolExecutor(_READERS) as pool:
            found = pool.map(lambda path, column: _keys_in(storage, path, column, wanted), new, map(columns.get, new))
            asked |= dict(zip(new, found, strict=True))
        here = set().union(*(asked[path] for path in columns))
        seen |= here
        if here or not embeddings.keys().isdisjoint(_embeddings_of(manifest)):
            holders.append(number)
    pending = _pending(storage)
    missing = tuple(key for key in wanted if key not in seen and hashed(key) not in pending)
    pinned = tuple(number for number in pinned_versions(storage) if number in holders)
    sources = _sources(read_manifest(storage, holders[-1]), embeddings, lengths, wanted) if holders else {}
    return Traces(wanted, missing, embeddings, lengths, tuple(holders), pinned, sources)


def check_erasable(storage: Storage, traces: Traces, *, pinned: bool = False) -> None:
    """Raises ``RunError`` where a key is nowhere, or a pinned version holds a row and is not to be given up."""
    if traces.missing:
        named = ", ".join(map(repr, traces.missing[:10])) + (", ..." if len(traces.missing) > 10 else "")
        raise RunError(f"{storage.uri()}: no row has the key {named}; nothing was erased")
    if traces.pinned and not pinned:
        named = ", ".join(map(str, traces.pinned))
        raise RunError(
            f"{storage.uri()}: version {named} holds the row and is pinned; `barycenter pin DIR N --remove` ends that, "
            "`--pinned` erases all the same; nothing was erased"
        )


def erase_rows(storage: Storage, lease: Lease, keys: Collection[str], *, pinned: bool = False) -> Erasure:
    """Takes rows out of everything that an output holds, and deletes the versions that hold them.

    Args:
        storage: The output.
        lease: The output's, taken for deletion.
        keys: Of the rows.
        pinned: Whether pinned versions that hold them are deleted, too.

    Raises:
        RunError: As :func:`check_erasable`, no row would be left, or another process took the output over.
    """
    fence(storage, lease)
    make_versions_last(storage)
    follow_promotions(storage)
    traces = find_traces(storage, keys)
    check_erasable(storage, traces, pinned=pinned)
    shown = shown_version(storage)
    base = read_manifest(storage, versions(storage)[-1] if shown is None else shown)
    _check_rows_left(storage, base, traces)
    others = _pending(storage) - {hashed(key) for key in traces.keys}
    _note(storage, others | {hashed(key) for key in traces.keys})
    contents = write_embeddings_without(storage, traces.embeddings, traces.keys)
    made = None
    if base.number in traces.versions:
        made = _committed(storage, lease, base, traces, shown=shown is not None)
    elif versions(storage)[-1] in traces.versions:  # no later version may take its number
        storage.create(manifest_path(max(numbers_taken(storage)) + 1), b"")
    kept = [read_manifest(storage, number) for number in versions(storage) if number not in traces.versions]
    encoders = {
        about["embedding_id"]: about["encoder_id"]
        for number in versions(storage)
        for about in read_manifest(storage, number).inputs.values()
    }
    clean_samples(storage, contents, encoders)
    clean_report(storage, traces.keys, made or base)
    deleted = _delete(storage, lease, traces, kept)
    _note(storage, others)
    return Erasure(traces, made, tuple(deleted))


def _check_rows_left(storage: Storage, base: Manifest, traces: Traces) -> None:
    left = sum(
        file.rows - len(rows_of(storage.read_table(file.path, columns=[base.key]).column(base.key), traces.keys))
        for file in base.files
    )
    if not left:
        raise RunError(f"{storage.uri()}: no row would be left; delete the folder instead; nothing was erased")


def _committed(storage: Storage, lease: Lease, base: Manifest, traces: Traces, *, shown: bool) -> Manifest:
    """Writes a version without the rows and commits it; readers see it at once where they saw the one before."""
    in_shards: dict[str, int] = {}
    gone = set()
    for shard in base.shards:
        paths = [embedding_path(name, about["embedding_id"], shard) for name, about in base.inputs.items()]
        if found := [path for path in paths if path in traces.embeddings]:
            in_shards[shard] = len(traces.embeddings[found[0]])
            if in_shards[shard] == traces.lengths[found[0]]:
                gone.add(shard)
    manifest = write_version_without(storage, base, traces.keys, in_shards, gone)
    manifest = replace(manifest, parent=versions(storage)[-1], number=0)
    return commit_manifest(storage, manifest, lease, "auto" if shown else "manual")


def _delete(storage: Storage, lease: Lease, traces: Traces, kept: Sequence[Manifest]) -> list[str]:
    """Deletes what holds the rows, and what no version has: a killed run's features may hold them, too."""
    for number in traces.pinned:
        unpin_version(storage, number)
    lease.check()
    storage.write(COLLECTED, json.dumps({"versions": sorted({*deleted_versions(storage), *traces.versions})}).encode())
    manifests = [manifest_path(number) for number in traces.versions]
    storage.remove(while_held(lease, manifests))
    needed = needed_paths(list(kept))
    files = [
        path
        for path in storage.list()
        if storage.is_temporary(path)
        or path.startswith(f"{FOLDER}/")
        or (path.startswith(_OF_VERSIONS) and not needed(path))
    ]
    storage.remove(while_held(lease, files))
    storage.remove(while_held(lease, traces.embeddings))
    lease.check()
    storage.abandon_uploads()
    return sorted([*manifests, *files, *traces.embeddings])


def _find_embeddings(
    storage: Storage, keys: Collection[str]
) -> tuple[dict[str, list[tuple[int, str]]], dict[str, int]]:
    """The rows in every embedding file that has any, and the length of every embedding file."""
    paths = [
        path for path in storage.list("embeddings") if path.endswith(".parquet") and not path.startswith("embeddings/.")
    ]

    def look(path: str) -> tuple[list[tuple[int, str]], int]:
        column = storage.read_table(path, columns=["key"]).column("key")
        return rows_of(column, keys), len(column)

    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(zip(paths, pool.map(look, paths), strict=True))
    return {path: rows for path, (rows, _) in found.items() if rows}, {path: n for path, (_, n) in found.items()}


def _keys_in(storage: Storage, path: str, column: str | None, keys: Collection[str]) -> set[str]:
    """Which keys a file of a version holds; none where it is gone."""
    try:
        return {
            key for _, key in rows_of(storage.read_table(path, columns=[column or "key"]).column(column or "key"), keys)
        }
    except MissingFileError:
        return set()


def _embeddings_of(manifest: Manifest) -> Iterable[str]:
    for name, about in manifest.inputs.items():
        yield from (embedding_path(name, about["embedding_id"], shard) for shard in manifest.shards)


def _pending(storage: Storage) -> set[str]:
    """Hashes of the keys whose erasure was cut short."""
    try:
        return set(json.loads(storage.read(NOTE))["keys"])
    except (MissingFileError, ValueError, KeyError, TypeError):
        return set()


def _note(storage: Storage, pending: set[str]) -> None:
    if pending:
        storage.write(NOTE, json.dumps({"keys": sorted(pending)}).encode())
    else:
        storage.remove([NOTE])


def _sources(
    manifest: Manifest, embeddings: dict[str, list[tuple[int, str]]], lengths: dict[str, int], keys: Iterable[str]
) -> dict[str, list[str]]:
    """The files of the corpus that keys were read from: shards are in the order of the files, and as long together.

    Where that cannot be known, as of tables that were joined, every file.
    """
    uris = [str(source["uri"]) for source in manifest.sources]
    ends = list(accumulate(int(source["rows"]) for source in manifest.sources))
    name, about = next(iter(manifest.inputs.items()))
    erased, start = Counter(manifest.other_keys.get(ERASED, {})), 0
    found: dict[str, list[str]] = {key: [] for key in keys}
    for shard in manifest.shards:
        path = embedding_path(name, about["embedding_id"], shard)
        for _, key in embeddings.get(path, []):
            uri = next((uri for uri, end in zip(uris, ends, strict=True) if start < end), "")
            found[key] = list(dict.fromkeys([*found[key], uri]))
        start += lengths.get(path, 0) + erased[shard]
    known = manifest.join is None and bool(ends) and start == ends[-1]
    return {key: places if known and places else uris for key, places in found.items()}
