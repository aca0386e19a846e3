"""The record of each fused block, until its version is committed: what a run that was cut short need not do again."""

from collections.abc import Sequence
from typing import Any

from barycenter.fusion.dataset.schema import FeatureFile
from barycenter.infra.storage import Storage
from barycenter.infra.storage.json_files import read_if_whole


def record_path(version: str, index: int) -> str:
    """Where the record of a block is kept until the version is committed."""
    return f"{_folder(version)}/{index:05d}.json"


def done_blocks(storage: Storage, version: str) -> dict[int, dict[str, Any]]:
    """The records of the blocks of a version whose files are all there, by number of the block.

    A record may be all that is left: a worker that outlives its run may write it after a garbage collection.
    """
    paths = [path for path in storage.list(_folder(version)) if path.endswith(".json")]
    if not paths:
        return {}
    read = {int(path.rsplit("/", 1)[1].removesuffix(".json")): read_if_whole(storage, path) for path in paths}
    records = {index: record for index, record in read.items() if record is not None}
    there = storage.sizes(f"features/{version}") | storage.sizes(f"rejects/{version}")
    return {
        index: record
        for index, record in records.items()
        if all(there.get(file["path"]) == file["bytes"] for file in record["files"])
        and there.keys() >= set(record["rejects"])
    }


def remove_records(storage: Storage, version: str) -> None:
    """Removes the records of a version."""
    storage.remove([path for path in storage.list(_folder(version)) if not storage.is_temporary(path)])


def remove_unlisted(storage: Storage, version: str, files: Sequence[FeatureFile]) -> None:
    """Removes the files that a killed run left, before readers see the version; temporary ones may be a live run's.

    The records of the blocks stay until the version is committed: a run that another one was faster than goes on there.
    """
    listed = {file.path for file in files}
    records = f"{_folder(version)}/"
    paths = [path for path in storage.list(f"features/{version}") if not path.startswith(records)]
    storage.remove([path for path in paths if path not in listed and not storage.is_temporary(path)])


def _folder(version: str) -> str:
    return f"features/{version}/_blocks"
