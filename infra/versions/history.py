"""The versions of an output: listed, and found by their id."""

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.manifests import read_manifest, versions


def history(storage: Storage) -> list[Manifest]:
    """Every committed manifest, oldest first.

    Raises:
        RunError: Nothing is committed.
    """
    numbers = versions(storage)
    if not numbers:
        raise RunError(f"{storage.uri()}: nothing has been committed here yet; finish a run first")
    return [read_manifest(storage, number) for number in numbers]


def find_version(storage: Storage, version: str) -> Manifest | None:
    """The newest manifest of a version id whose files are all there; reads manifests only where there are files."""
    there = set(storage.walk(f"features/{version}"))
    if not there:
        return None
    manifests = (read_manifest(storage, number) for number in reversed(versions(storage)))
    found = next((manifest for manifest in manifests if manifest.version == version), None)
    return found if found is not None and {file.path for file in found.files} <= there else None
