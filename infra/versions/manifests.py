"""Versions of an output: manifests made once, the pointer to the newest, verification, garbage."""

from collections.abc import Callable
from dataclasses import replace

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage.storage import MissingFileError, Storage
from barycenter.infra.versions.embedding_files import embedding_path, is_repair_note, merge_repair_notes

POINTER = "manifest.json"
_FOLDER = "manifests"
_COLLECTED = ("corpus/", "features/", "rejects/", "alignment/", "head/", "embeddings/", "index/")


def manifest_path(number: int) -> str:
    """Where version ``number`` is committed.

    >>> manifest_path(3)
    'manifests/3.json'
    """
    return f"{_FOLDER}/{number}.json"


def versions(storage: Storage) -> list[int]:
    """Numbers of all committed versions, ascending, from one listing."""
    names = (path.removeprefix(f"{_FOLDER}/").removesuffix(".json") for path in storage.walk(_FOLDER))
    return sorted(int(name) for name in names if name.isdecimal())


def read_manifest(storage: Storage, version: int | None = None) -> Manifest:
    """The manifest of a version, by default of the one that ``manifest.json`` names.

    Raises:
        RunError: There is no such version, or the file is damaged.
    """
    path = POINTER if version is None else manifest_path(version)
    try:
        return Manifest.from_json(storage.read(path))
    except MissingFileError as error:
        if version is None:
            raise RunError(f"{storage.uri(path)}: nothing has been committed here yet") from error
        there = ", ".join(map(str, versions(storage))) or "none"
        raise RunError(f"{storage.uri(path)}: there is no version {version} (there are: {there})") from error
    except RunError as error:
        raise RunError(f"{storage.uri(path)}: {error}; commit again or restore it") from error


def commit_manifest(storage: Storage, manifest: Manifest) -> int:
    """Commits a version: ``manifests/<n>.json``, made once, is the commit; ``manifest.json`` follows it.

    Of several runs that started from the same parent exactly one commits. Committing again what the newest version
    holds already (a rerun, or one that was killed between the two files) only mends the pointer.

    Everything the manifest lists must be there already. It has the number of the version that it was built on, if any;
    its own is set here and returned.

    Raises:
        RunError: Another run committed since the parent was read.
    """
    parent = manifest.parent or 0
    newest = max(versions(storage), default=0)
    if newest and _same(manifest, read_manifest(storage, newest)):
        point_to_newest(storage)
        return newest
    number = parent + 1
    body = replace(manifest, number=number, parent=parent or None).to_json()
    if newest != parent or not storage.create(manifest_path(number), body):
        winner = max(versions(storage), default=newest)
        raise RunError(
            f"{storage.uri()}: another run committed version {winner} meanwhile, this one was built on "
            f"{parent or 'none'}; run again to build on it"
        )
    point_to_newest(storage)
    return number


def point_to_newest(storage: Storage) -> int | None:
    """Makes ``manifest.json`` the newest version's manifest, as after a kill between the two; None without any.

    Safe beside other committers: whoever writes the pointer looks again afterwards, so the last look sees the
    newest version.
    """
    written = 0
    while (newest := max(versions(storage), default=0)) > written:
        body = storage.read(manifest_path(newest))
        if written or not storage.exists(POINTER) or storage.read(POINTER) != body:
            storage.write(POINTER, body)
        written = newest
    return written or None


def verify(storage: Storage, manifest: Manifest) -> list[str]:
    """Checks every file that a manifest lists against what is stored.

    Returns:
        One line for each problem: missing file, size, SHA-256, row count. Empty when all is well.
    """
    sizes = storage.sizes("features")
    problems: list[str] = []
    for file in manifest.files:
        path = file.path
        if path not in sizes and not storage.exists(path):
            problems.append(f"{path}: missing")
            continue
        size = sizes.get(path, file.bytes)
        if size != file.bytes:
            problems.append(f"{path}: {size} bytes, the manifest says {file.bytes}")
        elif storage.sha256(path) != file.sha256:
            problems.append(f"{path}: content differs from the manifest (SHA-256)")
        elif (rows := storage.parquet_metadata(path).num_rows) != file.rows:
            problems.append(f"{path}: {rows} rows, the manifest says {file.rows}")
    rejects = set(storage.walk("rejects")) if manifest.rejects else set()
    return problems + [f"{path}: missing" for path in manifest.rejects if path not in rejects]


def collect_garbage(storage: Storage, keep: int, dry_run: bool = False) -> list[str]:
    """Deletes what none of the newest ``keep`` versions refers to, and what killed writers left.

    Features, rejects, alignments, heads, embeddings, indexes, older manifests and temporary files are collected;
    reports and the plan stay. Manifests go first, so none ever lists a file that is gone. Not to be run beside a run:
    embeddings that are not committed yet are garbage.

    Returns:
        Relative paths of what was (or, in a ``dry_run``, would be) deleted, sorted.

    Raises:
        RunError: ``keep`` is below one, or nothing is committed here.
    """
    if keep < 1:
        raise RunError(f"keep {keep}: at least one version is kept")
    numbers = versions(storage)
    if not numbers:
        raise RunError(f"{storage.uri()}: nothing has been committed here, so nothing is garbage; finish a run first")
    kept = [read_manifest(storage, number) for number in numbers[-keep:]]
    old = [manifest_path(number) for number in numbers[:-keep]]
    needed = _needed(kept)
    garbage = sorted(
        path
        for path in storage.walk()
        if storage.is_temporary(path) or (path.startswith(_COLLECTED) and not needed(path))
    )
    if not dry_run:
        point_to_newest(storage)
        storage.remove(old)
        storage.remove(garbage)
        storage.abandon_uploads()
        merge_repair_notes(storage)
    return sorted(old + garbage)


def _needed(manifests: list[Manifest]) -> Callable[[str], bool]:
    """Whether any of the manifests refers to a path."""
    files: set[str] = set()
    folders: set[str] = set()
    for manifest in manifests:
        files.update([*(file.path for file in manifest.files), *manifest.rejects])
        for name, about in manifest.inputs.items():
            files.update(embedding_path(name, about["embedding_id"], shard) for shard in manifest.shards)
        files.update(f"index/{manifest.version}{end}" for end in (".faiss", ".keys.parquet"))
        folders.update([f"head/{manifest.version}", f"alignment/{manifest.alignment_id}", f"corpus/{manifest.join}"])
    return lambda path: path in files or "/".join(path.split("/", 2)[:2]) in folders or is_repair_note(path)


def _same(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests describe the same data, whoever wrote them and when."""
    first, second = ((each.version, each.files, each.rejects, each.shards) for each in (one, other))
    return first == second
