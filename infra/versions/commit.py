"""Commits: a manifest made once under the output's lease, and the pointer to the version that readers see."""

import json
from dataclasses import replace
from typing import Literal

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.clock import utc_now
from barycenter.infra.storage.storage import Storage
from barycenter.infra.versions.lease import Lease
from barycenter.infra.versions.manifests import (
    MANIFESTS,
    POINTER,
    deleted_versions,
    manifest_path,
    numbers_taken,
    read_manifest,
    versions,
)
from barycenter.infra.versions.numbered import numbered_files, numbered_path

_PROMOTIONS = "promotions"


def commit_manifest(
    storage: Storage, manifest: Manifest, lease: Lease, promote: Literal["auto", "manual"] = "auto"
) -> Manifest:
    """Commits a version: ``manifests/<n>.json``, made once, is the commit; ``manifest.json`` follows where it may.

    Of several writers that started from the same parent exactly one commits. What the newest version holds already (a
    rerun, or one that was killed between the two files) makes no new version.

    Everything that the manifest lists must be there already. It has the number of the version that it was built on, if
    any.

    Args:
        storage: The output.
        manifest: Of the new version.
        lease: The output's.
        promote: Whether readers see the version at once (``auto``).

    Returns:
        The manifest with its number, term and time.

    Raises:
        RunError: Another process took the output over, or committed since the parent was read.
    """
    parent = manifest.parent or 0
    taken = numbers_taken(storage)
    newest = max(versions(storage), default=0)
    if newest and _same(manifest, there := read_manifest(storage, newest)):
        show_newest(storage, there, lease, promote)
        return there
    _make_alignment_last(storage, manifest)
    number = max(taken, default=0) + 1
    made = replace(
        manifest, number=number, parent=parent or None, term=lease.number, promote=promote, committed=utc_now()
    )
    # Listed first and checked last: a number that is free although the lease is lost is taken by `fence`.
    lease.check()
    made_here = newest == parent and storage.create(manifest_path(number), made.to_json())
    # Looked at afterwards: a number is free again once its version is deleted, and said to be before that.
    if not made_here or number in deleted_versions(storage):
        winner = max(versions(storage), default=newest)
        raise RunError(
            f"{storage.uri()}: another run committed version {winner} meanwhile, this one was built on "
            f"{parent or 'none'}; run again to build on it"
        )
    follow_promotions(storage)
    return made


def show_newest(storage: Storage, newest: Manifest, lease: Lease, promote: Literal["auto", "manual"]) -> None:
    """Shows readers the newest version if it waits for a promotion that a job makes by itself; mends the pointer."""
    make_versions_last(storage)
    _make_alignment_last(storage, newest)
    if awaits_promotion(storage, newest, promote):
        promote_version(storage, newest.number, lease)
    else:
        follow_promotions(storage)


def awaits_promotion(storage: Storage, newest: Manifest, promote: Literal["auto", "manual"]) -> bool:
    """Whether the newest version waits for a promotion that a job makes by itself."""
    promoted = _newest_promotion(storage)
    chosen = promoted is not None and promoted["after"] >= newest.number
    return promote == "auto" and newest.promote == "manual" and not chosen


def promote_version(storage: Storage, number: int, lease: Lease) -> Manifest:
    """Makes a version, newer or older, the one that readers see, until another is promoted or committed.

    Raises:
        RunError: There is no such version, its files are gone, or another process wrote meanwhile.
    """
    make_versions_last(storage)
    if shown_version(storage) == number == follow_promotions(storage):
        return read_manifest(storage, number)
    promotions = numbered_files(storage, _PROMOTIONS)
    after = max(versions(storage), default=0)
    wanted = read_manifest(storage, number)
    there = storage.sizes("features")
    if gone := [file.path for file in wanted.files if file.path not in there]:
        raise RunError(
            f"{storage.uri()}: version {number} cannot be shown: {len(gone)} of its files are gone, such as {gone[0]}; "
            "choose another version, or restore them"
        )
    body = {"version": number, "after": after, "term": lease.number}
    lease.check()
    made = storage.create(numbered_path(_PROMOTIONS, max(promotions, default=0) + 1), json.dumps(body).encode())
    if not made or follow_promotions(storage) != number:
        raise RunError(
            f"{storage.uri()}: another process wrote here meanwhile; look at `barycenter inspect DIR --versions` and "
            "try again"
        )
    return wanted


def make_versions_last(storage: Storage) -> None:
    """Makes the versions that are there outlast a power cut: who committed them may have been killed before it had.

    Needed before anything else is built on them than a version, whose commit does it.
    """
    storage.sync_folders(["", MANIFESTS, _PROMOTIONS])


def _make_alignment_last(storage: Storage, manifest: Manifest) -> None:
    """The same for what features are read with, which another run may have fitted; they themselves are looked after."""
    storage.sync_folders(["alignment", f"alignment/{manifest.alignment_id}"])


def follow_promotions(storage: Storage) -> int | None:
    """Makes ``manifest.json`` the manifest of the version that readers should see, as after a kill between the two.

    The pointer is read before what it should be, and replaced only if it is still what was read; whoever writes it
    looks again. So it never goes back to what it was before.

    Returns:
        Number of the version; None where none is to be seen.
    """
    while True:
        now = storage.read(POINTER) if storage.exists(POINTER) else None
        shown = _shown_body(storage)
        if shown is None:
            return None
        number, body = shown
        if body == now:
            return number
        storage.replace(POINTER, body, now)


def fence(storage: Storage, lease: Lease) -> None:
    """Sees to it that no commit and no promotion comes any more from a holder that was given up.

    Such a one may have found its lease valid just before; the one number that it would take is taken here, with an
    empty file. Needed before anything is deleted that it may refer to.
    """
    if lease.unfenced:
        storage.create(manifest_path(max(numbers_taken(storage), default=0) + 1), b"")
        storage.create(numbered_path(_PROMOTIONS, max(numbered_files(storage, _PROMOTIONS), default=0) + 1), b"")
        lease.renew(fenced=True)


def shown_version(storage: Storage) -> int | None:
    """Number of the version that readers should see: the newest that shows itself, or one promoted after it."""
    shown = _shown(storage)
    return shown[0] if shown is not None else None


def last_promoted(storage: Storage) -> int | None:
    """Number of the version that somebody promoted last, as by a rollback."""
    promoted = _newest_promotion(storage)
    return None if promoted is None else promoted["version"]


def _shown(storage: Storage) -> tuple[int, int | None] | None:
    """The version that readers should see, and the number of its promotion, if any."""
    promoted = _newest_promotion(storage)
    committed = next((n for n in reversed(versions(storage)) if read_manifest(storage, n).promote == "auto"), None)
    if promoted is not None and promoted["after"] >= (committed or 0):
        return promoted["version"], promoted["number"]
    return (committed, None) if committed is not None else None


def _shown_body(storage: Storage) -> tuple[int, bytes] | None:
    """What ``manifest.json`` should hold: a manifest; one that was promoted carries the number of its promotion."""
    shown = _shown(storage)
    if shown is None:
        return None
    number, promotion = shown
    if promotion is None:
        return number, storage.read(manifest_path(number))
    manifest = read_manifest(storage, number)
    return number, replace(manifest, other_keys=manifest.other_keys | {"promotion": promotion}).to_json()


def _newest_promotion(storage: Storage) -> dict[str, int] | None:
    numbers = [number for number, size in numbered_files(storage, _PROMOTIONS).items() if size]
    if not numbers:
        return None
    path = numbered_path(_PROMOTIONS, max(numbers))
    try:
        body = json.loads(storage.read(path))
        return {"version": int(body["version"]), "after": int(body["after"]), "number": max(numbers)}
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{storage.uri(path)}: not a promotion ({error}); restore or delete it") from error


def _same(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests describe the same data, whoever wrote them and when."""
    first, second = ((each.version, each.files, each.rejects, each.shards) for each in (one, other))
    return first == second
