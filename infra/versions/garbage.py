"""Garbage of an output, what is kept from collection, and pins."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.clock import current_clock
from barycenter.infra.storage.storage import Storage
from barycenter.infra.versions.commit import fence, follow_promotions, make_versions_last, shown_version
from barycenter.infra.versions.digest_index import is_index
from barycenter.infra.versions.embedding_files import embedding_path, is_repair_note, merge_repair_notes, sample_path
from barycenter.infra.versions.lease import Lease, wait_while_deleting
from barycenter.infra.versions.manifests import (
    COLLECTED,
    deleted_versions,
    manifest_path,
    read_manifest,
    report_path,
    scored_rows_path,
    versions,
)
from barycenter.infra.versions.numbered import numbered_files, numbered_path

_COLLECTED = ("corpus/", "features/", "rejects/", "alignment/", "head/", "embeddings/", "index/", "report/versions/")
_PINS = "pins"
_DAY_SECONDS = 86_400.0
_LOOK_SECONDS = 15.0
"""Seconds after which a collection looks again whether it still holds the output, in the middle of deleting."""


@dataclass(frozen=True)
class Garbage:
    """What none of the kept versions needs.

    Attributes:
        versions: Numbers of the versions that are not kept.
        files: Relative paths of the files that no kept version refers to, sorted.
    """

    versions: tuple[int, ...]
    files: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        """Manifests and files, sorted."""
        return sorted([*map(manifest_path, self.versions), *self.files])


def check_collectable(storage: Storage, keep: int = 1) -> None:
    """Raises ``RunError`` where ``keep`` is below one, or nothing is committed."""
    if keep < 1:
        raise RunError(f"keep {keep}: at least one version is kept; give 1 or more")
    if not versions(storage):
        raise RunError(f"{storage.uri()}: nothing has been committed here, so nothing is garbage; finish a run first")


def find_garbage(storage: Storage, keep: int = 1, keep_days: float | None = None) -> Garbage:
    """Finds what no kept version refers to, and what killed writers left; deletes nothing.

    Kept are the version that readers see, pinned ones, the newest ``keep``, and those committed in the last
    ``keep_days`` days. Garbage are features, rejects, alignments, heads, embeddings, indexes, joined corpora and
    temporary files, and reports on versions that are not kept; the newest report and the plan stay.

    Raises:
        RunError: ``keep`` is below one, or nothing is committed here.
    """
    check_collectable(storage, keep)
    numbers = versions(storage)
    wanted = {*numbers[-keep:], shown_version(storage), *pinned_versions(storage)}
    if keep_days is not None:
        after = current_clock().time() - keep_days * _DAY_SECONDS
        wanted.update(number for number in numbers if _committed_at(read_manifest(storage, number)) >= after)
    needed = needed_paths([read_manifest(storage, number) for number in numbers if number in wanted])
    late = {manifest_path(number) for number in deleted_versions(storage)}
    files = sorted(
        path
        for path in storage.walk()
        if storage.is_temporary(path) or path in late or (path.startswith(_COLLECTED) and not needed(path))
    )
    return Garbage(tuple(number for number in numbers if number not in wanted), tuple(files))


def collect_garbage(storage: Storage, lease: Lease, keep: int = 1, keep_days: float | None = None) -> list[str]:
    """Deletes what :func:`find_garbage` finds. Manifests go first, so that none ever lists a file that is gone.

    Args:
        storage: The output.
        lease: The output's, taken for deletion.
        keep: How many of the newest versions are kept.
        keep_days: Versions of so many last days are kept, too.

    Returns:
        Relative paths of what was deleted, sorted.

    Raises:
        RunError: As :func:`find_garbage`, or another process took the output over.
    """
    fence(storage, lease)
    make_versions_last(storage)
    if versions(storage):
        follow_promotions(storage)
    garbage = find_garbage(storage, keep, keep_days)
    if garbage.versions:
        lease.check()
        # Written first: a request for a number that comes late, of a holder that was given up or one that was sent
        # again, makes no version any more.
        deleted = sorted({*deleted_versions(storage), *garbage.versions})
        storage.write(COLLECTED, json.dumps({"versions": deleted}).encode())
    storage.remove(while_held(lease, map(manifest_path, garbage.versions)))
    storage.remove(while_held(lease, garbage.files))
    lease.check()
    storage.abandon_uploads()
    merge_repair_notes(storage)
    return garbage.paths


def pinned_versions(storage: Storage) -> list[int]:
    """Numbers of the versions that garbage collection keeps because somebody asked for it, ascending."""
    return list(numbered_files(storage, _PINS))


def pin_version(storage: Storage, number: int) -> None:
    """Keeps a version from garbage collection until it is unpinned; waits for a collection, but for no other writer.

    Raises:
        RunError: There is no such version.
    """
    read_manifest(storage, number)
    storage.create(numbered_path(_PINS, number), b"{}")
    # A collection that began before the pin was there may not have seen it.
    wait_while_deleting(storage)
    try:
        read_manifest(storage, number)
    except RunError:
        unpin_version(storage, number)
        raise


def unpin_version(storage: Storage, number: int) -> None:
    """Leaves a version to garbage collection; one that is not pinned is no error."""
    storage.remove([numbered_path(_PINS, number)])


def _committed_at(manifest: Manifest) -> float:
    """Seconds since 1970; of a version that does not say, the end of time, so that it is kept."""
    return datetime.fromisoformat(manifest.committed).astimezone(UTC).timestamp() if manifest.committed else math.inf


def while_held(lease: Lease, paths: Iterable[str]) -> Iterator[str]:
    """The paths one by one, as long as the output is held; a process may have stood still between two of them."""
    looked = -math.inf
    for path in paths:
        # Not the monotonic clock, which stops while a machine sleeps.
        if abs(current_clock().time() - looked) >= _LOOK_SECONDS:
            lease.check()
            looked = current_clock().time()
        yield path


def needed_paths(manifests: list[Manifest]) -> Callable[[str], bool]:
    """Whether any of the manifests refers to a path."""
    files: set[str] = set()
    folders: set[str] = set()
    for manifest in manifests:
        files.update([*(file.path for file in manifest.files), *manifest.rejects])
        for name, about in manifest.inputs.items():
            files.update(embedding_path(name, about["embedding_id"], shard) for shard in manifest.shards)
            files.add(sample_path(about["encoder_id"]))
        files.update(f"index/{manifest.version}{end}" for end in (".faiss", ".keys.parquet"))
        files.update([report_path(manifest.version), scored_rows_path(manifest.version)])
        folders.update([f"head/{manifest.version}", f"alignment/{manifest.alignment_id}", f"corpus/{manifest.join}"])
        folders.add(f"alignment/moments/{manifest.alignment.get('moments')}")  # a refit goes on from them

    def is_needed(path: str) -> bool:
        above = accumulate(path.split("/")[:3], "{}/{}".format)
        return path in files or not folders.isdisjoint(above) or is_repair_note(path) or is_index(path)

    return is_needed
