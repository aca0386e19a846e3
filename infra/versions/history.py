"""The versions of an output beside each other: listed, found, compared."""

from typing import Any

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.manifests import read_manifest, versions

_LINEAGE = ("version", "job", "alignment_id", "average", "dim", "dtype", "key", "kept", "partition_by", "code")


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


def compare(storage: Storage, one: int, other: int) -> dict[str, Any]:
    """What changed from one version to another.

    Returns:
        ``rows`` {count: [before, after]}; ``sources`` {added, removed, changed: [relative path]}; ``shards`` and
        ``files`` {kept, added, removed: n}; ``changed`` {name: [before, after]} of the lineage and of the encoders.
    """
    before, after = read_manifest(storage, one), read_manifest(storage, other)
    old, new = _stamps(before), _stamps(after)
    facts, facts_now = _facts(before), _facts(after)
    changed = [name for name in facts | facts_now if facts.get(name) != facts_now.get(name)]
    return {
        "rows": {name: [before.rows[name], after.rows[name]] for name in ("read", "written", "rejected")},
        "sources": {
            "added": sorted(new.keys() - old.keys()),
            "removed": sorted(old.keys() - new.keys()),
            "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
        },
        "shards": _set_changes(set(before.shards), set(after.shards)),
        "files": _set_changes({file.path for file in before.files}, {file.path for file in after.files}),
        "changed": {name: [facts.get(name), facts_now.get(name)] for name in changed},
    }


def _stamps(manifest: Manifest) -> dict[str, tuple[int, str]]:
    return {source["relative"]: (source["size"], source["stamp"]) for source in manifest.sources}


def _facts(manifest: Manifest) -> dict[str, Any]:
    encoders = {f"encoder of {name}": about["encoder_id"] for name, about in manifest.inputs.items()}
    values = manifest.to_dict()
    return {name: values[name] for name in _LINEAGE} | encoders


def _set_changes(before: set[str], after: set[str]) -> dict[str, int]:
    return {"kept": len(before & after), "added": len(after - before), "removed": len(before - after)}
