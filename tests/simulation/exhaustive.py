"""The commit protocol, exhaustively: all interleavings of a few processes, with a crash at any step, states seen once.

``python -m tests.simulation.exhaustive`` prints how many states there are. Each visible storage operation is a step;
which process takes the next one, and which dies, is tried in every way. Time has no part in it: whoever waits for the
lease of a process that does not delete gives it up after one look without a new term.
"""

import hashlib
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.dataset.schema import FeatureFile, Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.storage.storage import MissingFileError
from barycenter.infra.versions import lease
from barycenter.infra.versions.commit import commit_manifest
from barycenter.infra.versions.garbage import collect_garbage
from barycenter.infra.versions.lease import Lease, acquire
from barycenter.infra.versions.manifests import newest_manifest, read_manifest
from tests.simulation.kernel import Kernel, Killed, Thread
from tests.simulation.schedule import QUIET, Action
from tests.simulation.world import World, current_world, entered, simulated


@dataclass(frozen=True)
class Scope:
    """Who is there: committers, collections and readers, after so many versions; how many may die."""

    committers: int = 2
    collections: int = 0
    readers: int = 1
    before: int = 1
    deaths: int = 1


@dataclass
class Explored:
    """What an exploration came to."""

    states: int = 0
    schedules: int = 0
    whole: bool = True
    failure: BaseException | None = None
    choices: list[int] = field(default_factory=list)


class _Seen(BaseException):
    """The state was reached before: the rest is known."""


class _Enumerator:
    """Follows a list of choices, then takes the first of each, and notes what else there was."""

    def __init__(self, choices: list[int], seen: set[bytes], world: World, deaths: int) -> None:
        self._choices, self._seen, self._world, self._deaths = choices, seen, world, deaths
        self.taken: list[int] = []
        self.open: list[list[int]] = []
        self.pruned = False

    def action(self, kernel: Kernel, thread: Thread, hot: int, faults: tuple[str, ...]) -> Action | None:
        others = kernel.ready()
        options: list[Action | None] = [None, *(("switch", other.name) for other in others)]
        if self._deaths and thread.process.name != "reader-1":
            options.append(("kill",))
        action = options[self._choose(len(options), thread)]
        if action == ("kill",):
            self._deaths -= 1
        return action

    def dies_waiting(self, thread: Thread) -> bool:
        return False

    def pick(self, thread: Thread, ready: list[Thread]) -> Thread:
        return ready[self._choose(len(ready), thread, ">")]

    def _choose(self, count: int, thread: Thread, where: str = "") -> int:
        place = len(self.taken)
        if place < len(self._choices):
            self.taken.append(self._choices[place])
            return self._choices[place]
        state = self._state(thread, where)
        if state in self._seen:
            self.pruned = True
            self._world.kernel.fail(_Seen())
        self._seen.add(state)
        self.open.extend([*self.taken, other] for other in range(1, count))
        self.taken.append(0)
        return 0

    def _state(self, thread: Thread, where: str) -> bytes:
        """All that the future depends on: what is stored, and what each process has seen."""
        digest = hashlib.blake2b(digest_size=12)
        for path, content in sorted(self._world.store.contents().items()):
            digest.update(f"{path}\0".encode() + content + b"\0")
        for name, process in sorted(self._world.processes.items()):
            digest.update(f"{name} {process.alive} {process.history} ".encode())
        digest.update(f"{thread.name}{where} {self._deaths}".encode())
        return digest.digest()


def explore_all(kind: str, scope: Scope, most: int = 10**9, seconds: float = 1e9) -> Explored:
    """Tries every interleaving, depth first, until all are known, ``most`` schedules were played, or one fails."""
    found, seen = Explored(), set[bytes]()
    stack: list[list[int]] = [[]]
    began = time.monotonic()
    with simulated(), _without_time():
        contents = _before(kind, scope.before)
        while stack:
            if found.schedules >= most or time.monotonic() - began > seconds:
                found.whole = False
                break
            choices = stack.pop()
            chooser, error = _play(kind, scope, contents, choices, seen)
            found.schedules += 1
            if error is not None:
                found.failure, found.choices = error, chooser.taken
                break
            stack.extend(chooser.open)
    found.states = len(seen)
    return found


def _play(
    kind: str, scope: Scope, contents: dict[str, bytes], choices: list[int], seen: set[bytes]
) -> tuple[_Enumerator, BaseException | None]:
    world = World(kind, "exhaustive", QUIET, contents)
    chooser = _Enumerator(choices, seen, world, scope.deaths)
    world.store.coarse = True
    world.kernel.tick = world.oracle.patience = 0.0
    with entered(world):
        for number in range(1, scope.committers + 1):
            world.start(f"run-{number}", lambda number=number: _commit(world, number))  # type: ignore[misc]
        for number in range(1, scope.collections + 1):
            world.start(f"gc-{number}", lambda number=number: _collect(world, number))  # type: ignore[misc]
        for number in range(1, scope.readers + 1):
            world.start(f"reader-{number}", lambda: _read(world))
        try:
            world.kernel.run(chooser)
            end = hashlib.blake2b(repr(sorted(world.store.contents().items())).encode(), digest_size=12).digest()
            if end in seen:
                return chooser, None
            seen.add(end)
            world.start("afterwards", lambda: _afterwards(world), host="c")
            world.kernel.run(QUIET)
            if world.outcomes["afterwards: done"] != 1:
                return chooser, RuntimeError(f"afterwards: {world.errors}")
            world.oracle.check_shown()
            world.oracle.check_all()
        except _Seen:
            return chooser, None
        except Killed:
            return chooser, world.kernel.failure
        except Exception as error:  # noqa: BLE001 - a finding
            return chooser, error
    return chooser, None


@lru_cache
def _file_of(name: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": [name]}), sink)
    return sink.getvalue()


def _version(storage: Storage, name: str, parent: int | None) -> Manifest:
    """Writes the one file of a version, and gives its manifest."""
    content = _file_of(name)
    path = f"features/{name}/part-0.parquet"
    storage.write(path, content)
    return Manifest(
        version=name,
        key="key",
        dim=8,
        dtype="float32",
        inputs={},
        rows={"read": 1, "written": 1, "rejected": 0},
        files=(FeatureFile(path, 1, len(content), hashlib.sha256(content).hexdigest()),),
        parent=parent,
    )


def _commit(world: World, number: int) -> None:
    storage = world.storage()
    with _held(storage, f"run {number}") as held:
        newest = newest_manifest(storage)
        manifest = _version(storage, f"v{number}", None if newest is None else newest.number)
        world.oracle.check_committed(commit_manifest(storage, manifest, held).number)


def _collect(world: World, number: int) -> None:
    storage = world.storage()
    world.keeps[f"gc-{number}"] = 1
    with _held(storage, "gc", deletes=True) as held:
        collect_garbage(storage, held, 1)


def _read(world: World) -> None:
    storage, shown = world.storage(), world.oracle.shown
    try:
        manifest = read_manifest(storage)
    except RunError as error:
        if isinstance(error.__cause__, MissingFileError) and shown is not None:
            world.violated("pointer", f"a reader found no version, although {shown} was shown")
        return
    for file in manifest.files:
        try:
            content = storage.read(file.path)
        except MissingFileError:
            world.oracle.reader_missed(manifest.number, file.path)
            return
        world.oracle.reader_read(manifest.number, file.path, file.sha256, content)


def _afterwards(world: World) -> None:
    """Whoever comes next finds all well, commits, and collects."""
    _commit(world, 9)
    world.keeps["afterwards"] = 1
    storage = world.storage()
    with _held(storage, "gc", deletes=True) as held:
        collect_garbage(storage, held, 1)
    _read(world)


@contextmanager
def _held(storage: Storage, purpose: str, deletes: bool = False) -> Iterator[Lease]:
    """As :func:`hold`, but nothing renews the lease: whoever waits may give it up at any time."""
    held = acquire(storage, purpose, deletes=deletes)
    try:
        yield held
    finally:
        held.release()


def _before(kind: str, versions: int) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    for number in range(1, versions + 1):
        world = World(kind, "before", QUIET, contents)
        with entered(world):
            world.start("run-0", lambda number=number, world=world: _commit(world, 100 + number))  # type: ignore[misc]
            world.kernel.run()
        contents = world.store.contents()
    return contents


@contextmanager
def _without_time() -> Iterator[None]:
    """Whoever holds the output is given up at the second look; who deletes is not, as long as it lives."""

    def has_given_up(self: lease._Watch, newest: lease.Term) -> bool:
        again, self._seen = newest == self._seen, newest
        if not newest.deletes:
            return again
        world = current_world()
        process = world.processes[newest.process]
        if not again and process.alive:
            before = world.store.contents("lease/")
            world.kernel.wait(lambda: not process.alive or world.store.contents("lease/") != before)
        return not process.alive

    def wait(self: lease._Watch, newest: lease.Term) -> None:
        return

    with (
        mock.patch.object(lease._Watch, "has_given_up", has_given_up),
        mock.patch.object(lease._Watch, "wait", wait),
    ):
        yield


SCOPES: dict[str, Scope] = {
    "two committers, a reader": Scope(),
    "a committer, a collection, a reader": Scope(committers=1, collections=1, before=2),
    "two committers, a collection": Scope(committers=2, collections=1, readers=0, before=2),
}
"""By name."""


def main(arguments: list[str]) -> int:
    """Explores every scope on both kinds of storage, each for some seconds at most."""
    seconds = float(arguments[0]) if arguments else 600.0
    failed = False
    for name, scope in SCOPES.items():
        for kind in ("local", "s3"):
            began = time.monotonic()
            found = explore_all(kind, scope, seconds=seconds)
            failed |= found.failure is not None
            how = "all" if found.whole else "not all"
            print(
                f"{name}, {kind}: {how} of {found.states} states, {found.schedules} schedules, "
                f"{time.monotonic() - began:.0f} s: {found.failure or 'nothing wrong'}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
