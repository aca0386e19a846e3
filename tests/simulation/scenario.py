"""What a seed lets happen on one output: which processes, on which storage, after which history."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import combinations
from typing import Any

from barycenter.fusion.errors import RunError
from barycenter.infra.storage.storage import MissingFileError, Storage
from barycenter.infra.versions.commit import promote_version
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.infra.versions.garbage import collect_garbage, pin_version
from barycenter.infra.versions.lease import hold
from barycenter.infra.versions.manifests import POINTER, newest_manifest, read_manifest, verify
from tests.simulation.job import INPUT, ROWS, Notes, TinyJob, embedding, features, run
from tests.simulation.kernel import Killed
from tests.simulation.schedule import QUIET
from tests.simulation.workers import SimulatedExecutor
from tests.simulation.world import World, entered

_DIMS = (4, 8, 16)
_LOSSES = 2
"""How often a row must bring its worker down, alone, before it is given up."""

_CALM_SECONDS = 800.0
"""Longer than any lease, late request or orphan lasts."""


@dataclass(frozen=True)
class Actor:
    """One process of a scenario.

    Attributes:
        name: Its kind and a number: ``run-1``, ``gc-2``, ``promote-1``, ``pin-1``, ``reader-1``.
        job: What a run is asked for.
        number: Versions that a collection keeps, or the one that is promoted or pinned.
        delay: Seconds after the beginning.
        host: Its machine.
        workers: Of a run.
        lingering: Seconds that a worker works on after its driver gave it up.
        unit_seconds: What a unit of work takes, on average.
        dies: Seconds after the beginning at which it is killed; 0 where that is left to the schedule.
    """

    name: str
    job: TinyJob | None = None
    number: int = 1
    delay: float = 0.0
    host: str = "a"
    workers: int = 2
    lingering: float = 0.0
    unit_seconds: float = 1.0
    dies: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """What there is before, and who comes."""

    kind: str
    corpus: TinyJob
    before: int
    actors: tuple[Actor, ...]
    page: int = 1000

    @classmethod
    def of(cls, seed: int) -> "Scenario":
        """The scenario of a seed."""
        draw = random.Random(f"scenario {seed}")

        def likely(chance: float) -> bool:
            return draw.random() < chance

        theme = draw.choice(("", "", "repairs", "contention"))
        corpus = TinyJob(
            shards=draw.choice((2, 3)),
            poisoned=((1, 2),) if likely(0.15) else (),
            bad=(0,) if likely(0.35) or theme == "repairs" else (),
        )
        before = draw.choice((1, 2) if theme == "repairs" else (0, 0, 1, 2, 3))
        actors: list[Actor] = []
        seconds = 8.0 if theme == "repairs" else draw.choice((0.5, 1.0, 8.0))
        dims = (draw.choice(_DIMS),) if theme == "repairs" else _DIMS
        busy = ("wait",) if theme else ("wait", "wait", "skip", "fail")

        def come(kind: str, **what: Any) -> None:
            where = {"delay": draw.choice((0.0, 0.0, draw.uniform(0, 15))), "host": draw.choice("ab")}
            where |= {"host": "a", "delay": draw.uniform(0, 3)} if theme == "repairs" else {}
            actors.append(Actor(f"{kind}-{len(actors) + 1}", **what, **where))

        for number in range(1 + (likely(0.6) or bool(theme)) + likely(0.25)):
            retries = (number == 0 or likely(0.15)) if theme == "repairs" else likely(0.7)
            job = replace(
                corpus,
                encoder="e1" if likely(0.8) or theme == "repairs" else "e2",
                dim=draw.choice(dims),
                retry_bad=bool(corpus.bad) and retries,
                busy=draw.choice(busy),
                promote=draw.choice(("auto", "auto", "auto", "manual")),
            )
            come(
                "run",
                job=job,
                workers=draw.choice((1, 2, 3)),
                lingering=draw.choice((0.0, 0.0, 30.0)),
                unit_seconds=seconds,
                dies=draw.uniform(2, 14) if theme == "repairs" and number == 0 and likely(0.8) else 0.0,
            )
        for kind, chance in (("gc", 0.5), ("gc", 0.1), ("promote", 0.35), ("promote", 0.1), ("pin", 0.15)):
            if likely(chance):
                come(kind, number=draw.choice((1, 1, 2)) if kind == "gc" else draw.randint(1, before + 1))
        for _ in range(1 + likely(0.5)):
            come("reader")
        return cls(
            draw.choice(("local", "local", "linkless", "s3", "s3")),
            corpus,
            before,
            tuple(actors),
            draw.choice((1000, 2)),
        )


@lru_cache(maxsize=256)
def history(kind: str, corpus: TinyJob, count: int) -> dict[str, bytes]:
    """What is stored after so many undisturbed runs."""
    if not count:
        return {}
    world = World(kind, "history", QUIET, history(kind, corpus, count - 1))
    job = replace(corpus, dim=_DIMS[count - 1])
    with entered(world):
        world.start("run-1", lambda: run_job(world, Actor("run-1", job)))
        world.kernel.run()
    assert world.outcomes == {"run: done": 1}, world.outcomes
    return world.store.contents()


def run_job(world: World, actor: Actor) -> None:
    """One run."""
    assert actor.job is not None
    storage = world.storage()

    def crash() -> None:
        world.kernel.kill(world.kernel.process)

    def executor(make: Callable[[], object]) -> SimulatedExecutor:
        return SimulatedExecutor(world.kernel, make, actor.workers, world.seed, actor.lingering, actor.unit_seconds)

    world.mended |= actor.job.retry_bad
    notes = Notes(crash, world.violated, lambda: world.mended)
    folder = f"embeddings/{INPUT}/{actor.job.encoder}/s"

    def there() -> set[str]:
        return {f"embed {path[len(folder) : -8]}" for path in world.store.contents(folder) if path.endswith(".parquet")}

    manifest = run(actor.job, storage, executor, notes, there)
    world.acknowledged.append(manifest.number)
    world.oracle.check_committed(manifest.number)


def collect(world: World, actor: Actor) -> None:
    """One garbage collection."""
    storage = world.storage()
    world.keeps[actor.name] = actor.number
    with hold(storage, "gc", deletes=True) as lease:
        collect_garbage(storage, lease, actor.number)


def promote(world: World, actor: Actor) -> None:
    """One promotion, or rollback."""
    storage = world.storage()
    with hold(storage, "promote") as lease:
        promote_version(storage, actor.number, lease)


def pin(world: World, actor: Actor) -> None:
    """Pins a version, which must then be there for as long as it stays pinned."""
    pin_version(world.storage(), actor.number)
    world.oracle.pinned(actor.number)


def read(world: World, actor: Actor, times: int = 3) -> None:
    """Opens what readers see and reads it all, several times."""
    storage, oracle = world.storage(), world.oracle
    for _ in range(times):
        shown = oracle.shown
        try:
            manifest = read_manifest(storage)
        except RunError as error:
            if isinstance(error.__cause__, MissingFileError) and shown is not None:
                world.violated("pointer", f"a reader found no {POINTER}, although version {shown} was shown")
            manifest = None
        for file in manifest.files if manifest is not None else ():
            assert manifest is not None
            try:
                content = storage.read(file.path)
            except MissingFileError:
                oracle.reader_missed(manifest.number, file.path)
                break
            except RunError:
                break
            oracle.reader_read(manifest.number, file.path, file.sha256, content)
        world.kernel.sleep(world.kernel.process.random.uniform(0, 20))


BODIES: dict[str, Callable[[World, Actor], None]] = {
    "run": run_job,
    "gc": collect,
    "promote": promote,
    "pin": pin,
    "reader": read,
}


def start(world: World, scenario: Scenario) -> None:
    """Starts every process of a scenario."""
    for actor in scenario.actors:
        body = BODIES[actor.name.partition("-")[0]]
        process = world.start(actor.name, partial(body, world, actor), actor.delay, actor.host)
        if actor.dies:
            world.kernel.at(actor.dies, partial(world.kernel.end, process))
    if scenario.kind != "s3":
        world.kernel.on_event["power"] = world.lose_power


def afterwards(world: World, scenario: Scenario) -> None:
    """When all is over: one of the jobs runs through undisturbed and gives what it should, and garbage is garbage."""
    jobs = list(dict.fromkeys(
        replace(actor.job, busy="wait", promote="auto") for actor in scenario.actors if actor.job is not None
    ))  # fmt: skip

    def body() -> None:
        world.kernel.sleep(_CALM_SECONDS)
        for number in world.acknowledged:
            world.oracle.check_committed(number)
        storage = world.storage()
        job = world.chance.choice(jobs)
        run_job(world, Actor("run", job))
        _check_rerun(world, storage, job)
        with hold(storage, "gc", deletes=True) as lease:
            world.keeps["afterwards"] = 1
            collect_garbage(storage, lease, 1)
        _check_garbage(world, storage)
        read(world, Actor("reader"), times=1)
        if problems := verify(storage, read_manifest(storage)):
            world.violated("verifies", "; ".join(problems))

    world.start("afterwards", body, host="c")
    world.kernel.run(QUIET)
    try:
        if world.outcomes["afterwards: done"] != 1:
            world.violated("afterwards", f"the undisturbed runs ended so: {world.errors}")
        world.oracle.check_shown()
        world.oracle.check_all()
    except Killed:
        assert world.kernel.failure is not None
        raise world.kernel.failure from None


def _check_rerun(world: World, storage: Storage, job: TinyJob) -> None:
    """The newest version holds what the embeddings that are there give, byte by byte."""
    world.oracle.checks["a rerun gives the undisturbed run's bytes"] += 1
    manifest = newest_manifest(storage)
    assert manifest is not None
    struck = sum(".worker" in name for name in world.kernel.struck)
    expected: list[bytes] = []
    for index, block in enumerate(job.blocks):
        there = [storage.read(embedding_path(INPUT, job.encoder, shard)) for shard in block]
        for shard, content in zip(block, there, strict=True):
            if content not in allowed(job, int(shard[1:]), struck // _LOSSES):
                world.violated("bytes", f"the embeddings of {shard} are {content!r}")
        expected += features(job.dim, index, tuple(there))
    for file, content in zip(manifest.files, expected, strict=True):
        if storage.read(file.path) != content:
            world.violated("bytes", f"{file.path} is not made of the embeddings that are there")


def allowed(job: TinyJob, shard: int, innocent: int = 0) -> list[bytes]:
    """What the embedding file of a shard may hold, where so many innocent rows may have been given up, too.

    A row whose worker is killed each time that it is tried alone looks like a guilty one.
    """
    guilty = [row for of, row in job.poisoned if of == shard]
    others = [row for row in range(ROWS) if row not in guilty]
    skips = [(*guilty, *more) for count in range(innocent + 1) for more in combinations(others, count)]
    states = (True,) if job.retry_bad else (False, True)
    return [embedding(job, shard, skip, mended) for skip in skips for mended in states]


def _check_garbage(world: World, storage: Storage) -> None:
    """Nothing temporary is left, and nothing that no version lists."""
    world.oracle.checks["nothing temporary is left"] += 1
    listed = {path for manifest in world.oracle.manifests.values() for path in world.oracle.paths(manifest)}
    left = [
        path
        for path in world.store.contents()
        if storage.is_temporary(path) or (path.startswith(("features/", "rejects/")) and path not in listed)
    ]
    if left or getattr(world.store, "uploads", 0):
        world.violated("garbage", f"left after a collection: {left or 'a multipart upload'}")
