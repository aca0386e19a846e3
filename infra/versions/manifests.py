"""The versions of an output: where their manifests lie, reading them, checking them against their files."""

import json

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage.storage import MissingFileError, Storage
from barycenter.infra.versions.numbered import numbered_files, numbered_path

POINTER = "manifest.json"
COLLECTED = "collected.json"
MANIFESTS = "manifests"


def manifest_path(number: int) -> str:
    """Where version ``number`` is committed.

    >>> manifest_path(3)
    'manifests/3.json'
    """
    return numbered_path(MANIFESTS, number)


def report_path(version: str) -> str:
    """Where the newest report on a version stays when later versions have theirs.

    >>> report_path("3f9a")
    'report/versions/3f9a.json'
    """
    return f"report/versions/{version}.json"


def scored_rows_path(version: str) -> str:
    """Where the scores of single rows behind that report lie.

    >>> scored_rows_path("3f9a")
    'report/versions/3f9a.rows.parquet'
    """
    return f"report/versions/{version}.rows.parquet"


def versions(storage: Storage) -> list[int]:
    """Numbers of all committed versions, ascending; a deleted one is none, whatever comes under its number."""
    deleted = deleted_versions(storage)
    return [number for number, size in numbers_taken(storage).items() if size and number not in deleted]


def deleted_versions(storage: Storage) -> set[int]:
    """Numbers of the versions that garbage collection deleted, or is about to."""
    try:
        return set(json.loads(storage.read(COLLECTED))["versions"])
    except MissingFileError:
        return set()
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{storage.uri(COLLECTED)} is no list of deleted versions ({error}); restore it from a copy"
        ) from error


def numbers_taken(storage: Storage) -> dict[int, int]:
    """Bytes of the manifest of every version, ascending; an empty one is a number that nobody may commit any more."""
    return numbered_files(storage, MANIFESTS)


def read_manifest(storage: Storage, version: int | None = None) -> Manifest:
    """The manifest of a version, by default of the one that readers see.

    Raises:
        RunError: There is no such version, or the file is damaged.
    """
    path = POINTER if version is None else manifest_path(version)
    try:
        if version is not None and version in deleted_versions(storage):
            raise MissingFileError(path)
        content = storage.read(path)
        if not content:
            raise MissingFileError(path)  # a number that is taken, of a version that is deleted or never was
        return Manifest.from_json(content)
    except MissingFileError as error:
        raise RunError(f"{storage.uri(path)}: {_why_missing(storage, version)}") from error
    except RunError as error:
        raise RunError(f"{storage.uri(path)}: {error}; restore it") from error


def newest_manifest(storage: Storage) -> Manifest | None:
    """The manifest of the newest version, whether or not readers see it; None where nothing is committed."""
    numbers = versions(storage)
    return read_manifest(storage, numbers[-1]) if numbers else None


def _why_missing(storage: Storage, version: int | None) -> str:
    there = versions(storage)
    listed = ", ".join(map(str, there)) or "none"
    if version is None and there:
        return f"no version is shown to readers yet (there are: {listed}); choose one with `barycenter promote`"
    empty = not there and next(storage.walk(), None) is None
    hint = ": there is no such folder, or it is empty; check the path" if empty else ""
    if version is None:
        return f"nothing has been committed here yet{hint}"
    if there and 0 < version < there[-1]:
        return (
            f"version {version} was deleted by `barycenter gc` (there are: {listed}); "
            "`barycenter pin` keeps a version that is in use"
        )
    return f"there is no version {version} (there are: {listed}){'; choose one of them' if there else hint}"


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
