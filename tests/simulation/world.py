"""One simulated world: a storage, processes on it, and an oracle that watches."""

import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from barycenter.fusion.errors import BarycenterError
from barycenter.infra.clock import use_clock
from barycenter.infra.storage import Storage
from barycenter.infra.storage.storage import STORES, MissingFileError
from barycenter.infra.versions import embedding_files, lease
from barycenter.infra.versions.lease import COLLECTOR_PATIENCE, TERM_SECONDS
from tests.simulation.disk import SimulatedDisk, SimulatedLocalStore
from tests.simulation.features import KNOWN_PARQUET, parted_once
from tests.simulation.kernel import FOREVER, Chooser, Kernel, Killed, Process, Violation
from tests.simulation.objects import SimulatedBucket, SimulatedS3Store
from tests.simulation.oracle import Oracle

CLAIM_SECONDS = 5.0
"""Longest pause where there are no hard links: a writer that pauses longer while it places a file loses its claim."""

DELETION_SECONDS = COLLECTOR_PATIENCE * TERM_SECONDS - 60.0
"""Longest pause of a process that deletes: no storage refuses a deletion that comes after it was given up."""

POLL_SECONDS = 8.0
"""Between two looks of a process that waits for the output; fewer than in earnest, because each costs steps."""

MULTIPART = 256
"""Bytes from which a simulated S3 object is a multipart upload, so that tiny files are some."""


class World:
    """The output of all processes, and what became of each.

    Args:
        kind: ``local``, ``linkless`` (a file system without hard links) or ``s3``.
        seed: Of the processes' own chance.
        chooser: Decides what happens.
        contents: What is stored at the beginning.
        page: Entries in a page of S3's listings.
    """

    def __init__(
        self, kind: str, seed: object, chooser: Chooser, contents: dict[str, bytes] | None = None, page: int = 1000
    ) -> None:
        self.kernel = Kernel(chooser, tick=0.002 if kind != "s3" else 0.02)
        self.kernel.longest_pause = CLAIM_SECONDS if kind == "linkless" else FOREVER
        self.seed = seed
        self.uri = "sim+s3://world/out" if kind == "s3" else "sim://world/out"
        self.store: SimulatedBucket | SimulatedDisk
        if kind == "s3":
            self.store = SimulatedBucket(self.kernel, "out", self._changed, page)
            self.store.restore(contents or {}, "out")
        else:
            self.store = SimulatedDisk(self.kernel, "/world/out", self._changed, links=kind != "linkless")
            self.store.restore(contents or {}, "/world/out")
        self.processes: dict[str, Process] = {}
        self.outcomes: Counter[str] = Counter()
        self.errors: dict[str, str] = {}
        self.keeps: dict[str, int] = {}
        self.mended = False
        self.chance = random.Random(f"world {seed}")
        self.oracle = Oracle(
            self.store.peek,
            self.violated,
            lambda: self.keeps.get(self.kernel.process.name, 0),
            self._last_look,
            lambda: self.kernel.now,
            lambda name: name in self.processes and self.processes[name].alive,
        )
        self.oracle.load(contents or {})
        self.acknowledged: list[int] = []

    def start(self, name: str, body: Callable[[], Any], delay: float = 0.0, host: str = "a") -> Process:
        """A process that runs ``body``; errors for users are an outcome, others a violation."""
        process = Process(name, self.seed, offset=1000.0 * len(self.processes))
        process.host = host
        if name.startswith("gc"):
            process.longest_pause = DELETION_SECONDS
        self.processes[name] = process

        def main() -> None:
            kind = name.partition("-")[0]
            try:
                body()
                self.outcomes[f"{kind}: done"] += 1
            except BarycenterError as error:
                self.outcomes[f"{kind}: {type(error).__name__}"] += 1
                self.errors[name] = str(error)
                if refused := re.search(r"another run committed version (\d+)", str(error)):
                    self.oracle.check_refusal(name, int(refused[1]))
                if isinstance(error, MissingFileError) and self._lost_to_nobody(name, str(error)):
                    self.violated(
                        "missing file", f"{name}, which held the output or tried to, did not find a file: {error}"
                    )
            except Killed:
                self.outcomes[f"{kind}: killed"] += 1
                raise

        self.kernel.spawn(process, main, delay=delay)
        return process

    def storage(self) -> Storage:
        """The output, as a process opens it."""
        return Storage(self.uri)

    def violated(self, invariant: str, detail: str) -> None:
        """Ends the simulation with a violation."""
        self.kernel.fail(Violation(invariant, detail))

    def lose_power(self) -> None:
        """Ends every process; what was not synced may be lost."""
        for process in self.kernel.processes():
            self.kernel.end(process)
        assert isinstance(self.store, SimulatedDisk)
        self.store.lose_power(self.chance)
        self.oracle.load(self.store.contents())

    def _lost_to_nobody(self, name: str, error: str) -> bool:
        """Whether a process that did not find a file has the lease, or was about to take it."""
        terms = {int(path[6:-5]): path for path in self.store.contents("lease/") if path[6:-5].isdecimal()}
        newest = json.loads(self.store.peek(terms[max(terms)]) or b"{}") if terms else {}
        return "/lease" in error or (newest.get("process") == name and not newest["released"])

    def _last_look(self) -> tuple[str, int]:
        """The running process, and how many steps ago its main thread listed the lease."""
        if self.kernel.acting is not None:
            return self.kernel.acting.name, 0
        thread = self.kernel.current
        return thread.process.name, thread.count - thread.looked

    def _changed(self, path: str, before: bytes | None, after: bytes | None) -> None:
        self.oracle.changed(path, before, after)


_current: list[World] = []


@contextmanager
def entered(world: World) -> Iterator[World]:
    """Makes a world the one that ``sim://`` leads to."""
    _current.append(world)
    try:
        yield world
    finally:
        _current.pop()


def current_world() -> World:
    """The world that ``sim://`` leads to."""
    return _current[-1]


class _WorldClock:
    """The clock of the process that runs in the world of the moment."""

    def monotonic(self) -> float:
        return current_world().kernel.now + current_world().kernel.process.offset

    def time(self) -> float:
        return 1.7e9 + current_world().kernel.now

    def sleep(self, seconds: float) -> None:
        current_world().kernel.sleep(seconds)

    def uniform(self, low: float, high: float) -> float:
        return current_world().kernel.process.random.uniform(low, high)

    def token(self, size: int) -> str:
        return current_world().kernel.process.random.randbytes(size).hex()


def _process_name() -> str:
    return current_world().kernel.process.name


def _process_lives(name: str) -> bool | None:
    """Whether a process runs, as far as another of its machine can know."""
    process = current_world().processes.get(name)
    if process is None or process.host != current_world().kernel.process.host:
        return None
    return process.alive


@contextmanager
def simulated() -> Iterator[None]:
    """Puts simulated storage, time, threads and processes beneath the code, until the end of the block."""
    from tests.simulation import threads  # which asks for the world of the moment

    stores: dict[str, Any] = {
        "sim": lambda root, _: SimulatedLocalStore(root, current_world().store),  # type: ignore[arg-type]
        "sim+s3": lambda root, _: SimulatedS3Store(root, current_world().store),  # type: ignore[arg-type]
    }
    patches: list[Any] = [
        mock.patch.dict(STORES, stores),
        mock.patch.object(lease, "threading", threads),
        mock.patch.object(lease, "process_id", _process_name),
        mock.patch.object(lease, "process_lives", _process_lives),
        mock.patch.object(lease, "describe_process", _process_name),
        mock.patch.object(lease, "_POLL_SECONDS", POLL_SECONDS),
        mock.patch.object(embedding_files, "ThreadPoolExecutor", threads.OneAfterTheOther),
        mock.patch("barycenter.infra.storage.remote._PART", MULTIPART),
        mock.patch("barycenter.tasks.fuse.writers.pq", KNOWN_PARQUET),
        mock.patch("barycenter.tasks.fuse.writers._parted", parted_once),
    ]
    with ExitStack() as stack:
        stack.enter_context(use_clock(_WorldClock()))
        for patch in patches:
            stack.enter_context(patch)
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        stack.callback(logging.disable, disabled)
        yield
