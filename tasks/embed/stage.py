"""Embed one input: shards of the corpus through its encoder, one Parquet file a shard; a file that is there is done."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal

import pyarrow.compute as pc

from barycenter.fusion.encoders import fixed_batch_size
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.corpus import Pictures, Shard
from barycenter.infra.dispatch.api import Work, dispatch
from barycenter.infra.dispatch.executor import Executor, WorkerAllocation
from barycenter.infra.dispatch.pool import LostWorker
from barycenter.infra.dispatch.shares import Share
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.versions.embedding_files import Repairs, done_shards, embedding_path
from barycenter.infra.words import counted
from barycenter.tasks.embed.bad_inputs import check_bad_fraction
from barycenter.tasks.embed.execution import Execution
from barycenter.tasks.embed.index import current_index, reuse_of
from barycenter.tasks.embed.memory import worker_bytes
from barycenter.tasks.embed.settings import device_of, find_execution, fixed_executions, pin_batch_settings
from barycenter.tasks.embed.versions import AcceptedVersions, borrow_sample, known_versions, lacks_sample
from barycenter.tasks.embed.versions_check import is_adoptable, machine_of
from barycenter.tasks.embed.worker import Calibration, EmbedSetting, EmbedWorker, ShardJob
from barycenter.tasks.observability.progress import WAITED_SECONDS, StageProgress
from barycenter.tasks.run.context import Run, storage_options
from barycenter.tasks.run.identities import embedding_ids, encoding_id
from barycenter.tasks.run.input_values import Columns, InputValues
from barycenter.tasks.run.plan_file import fix_engine
from barycenter.tasks.run.workers import at_most

_READERS = 16
_SAMPLED_SHARDS = 8


def embed_input(run: Run, name: str, cluster: Cluster, share: Share | None = None, inputs: int = 1) -> dict[str, Any]:
    """Embeds what is not yet embedded of one input.

    Args:
        run: The run.
        name: The input.
        cluster: Where its workers run.
        share: Its part of them, where other inputs are embedded beside it.
        inputs: How many are, it included.

    Returns:
        Figures for report.json: rows, seconds, rows_per_s, shards, seconds of each part, what limited the stage, the
        batch and the least one that memory allowed, seconds until the first worker was ready and the batch found, rows
        encoded to find the batch and to check the encoder (``trial``), workers lost and why, the most memory that one
        took; and under ``reuse`` what became of the rows.

    Raises:
        JobError: Under other versions, or on another kind of machine, the encoder gives other vectors than before, and
            the run is not to adopt them.
    """
    fix_engine(run.storage, run.engine)
    try:
        return _embed_input(run, name, cluster, share, inputs)
    except JobError as error:
        if not (run.adopt and is_adoptable(error, name)):
            raise
    run.adopt_encoder(name)
    return _embed_input(run, name, cluster, share, inputs)


def input_workers(run: Run, name: str, cluster: Cluster, rows: int | None, inputs: int = 1) -> WorkerAllocation:
    """The workers that an input would have if it were alone, of as many threads as plan.json has for this machine.

    Those that ``rows`` are worth, or without them all that there is room for. An encoder without a model needs no GPU.
    """
    ray, spec = run.job.ray, run.specs[name]
    gpus = ray.gpus_per_worker if fixed_batch_size(spec) is None else 0

    def allocated(threads: int | Literal["auto"]) -> WorkerAllocation:
        memory = worker_bytes(spec)
        return cluster.machines().allocate_workers(ray.workers, threads, gpus, rows, memory=memory, inputs=inputs)

    workers = allocated(ray.threads_per_worker)
    fixed = find_execution(run, name, workers, machine_of(spec, device_of(workers))).threads
    return workers if fixed == workers.threads else allocated(fixed)


def _embed_input(run: Run, name: str, cluster: Cluster, share: Share | None, inputs: int) -> dict[str, Any]:
    shards = pending_shards(run, name)
    rows = sum(shard.rows for shard in shards)
    index = current_index(run, name)
    if not shards:
        check_bad_fraction(run, name)
        nothing = {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0, "shards": 0, "shards_done_before": len(run.shards)}
        return nothing | {"reuse": reuse_of(run, name, index)}
    borrow_sample(run, name)
    workers = input_workers(run, name, cluster, rows, inputs)
    mended = _announce_repairs(run, name, shards)
    if share is not None:
        room = input_workers(run, name, cluster, None, inputs).workers
        share.begin(device_of(workers), room, min(workers.workers, len(shards)), rows)
    stage = _Stage(run, name, cluster, at_most(workers, len(shards)), mended, share)
    with StageProgress(f"embed {name}", rows, skipped=run.rows - rows, storage=run.storage) as progress:
        # What is new is at the end more often than not: its worker loads the model while others take over the rest.
        stage.work(shards[::-1] if index.rows else shards, progress)
        if progress.seconds >= WAITED_SECONDS:
            progress.note(stage.limited_by())
        if taken := stage.rows["copied"] + stage.rows["duplicate"]:
            progress.note(f"{taken:,} rows were known by content and taken over, {stage.rows['encoded']:,} encoded")
    mended.settle()
    index = current_index(run, name, changed=mended.paths)
    check_bad_fraction(run, name, stage.bad, {shard.id for shard in shards})
    counts = {"shards": len(shards), "shards_done_before": len(run.shards) - len(shards)}
    return progress.figures() | counts | stage.figures() | {"reuse": reuse_of(run, name, index, stage.trial)}


class _Stage:
    """One input's shards on their way through the workers, and what is measured of them."""

    def __init__(
        self,
        run: Run,
        name: str,
        cluster: Cluster,
        workers: WorkerAllocation,
        mended: Repairs,
        share: Share | None,
    ) -> None:
        self._run, self._name, self._cluster, self._mended, self._share = run, name, cluster, mended, share
        self._embedding_id = embedding_ids(run)[name]
        self._machine = machine_of(run.specs[name], device_of(workers))
        self.execution = find_execution(run, name, workers, self._machine)
        self._executions = fixed_executions(run, name, workers)
        self._versions = AcceptedVersions(run, name)
        self.workers = replace(workers, threads=self.execution.threads)
        self._parts: Counter[str] = Counter()
        self.bad: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._encoded = self.trial = self._memory = 0
        self._least: int | None = None
        self._start_seconds = 0.0

    def work(self, shards: Sequence[Shard], progress: StageProgress) -> None:
        """Finds the batch, unless it is known, and embeds the shards."""
        first: list[Work] = []
        if not self.execution.is_found or lacks_sample(self._run, self._name):
            first = _calibrations(shards)
        else:
            self._pin(self._machine, self.execution)
            self._end_trial()

        def done(work: Work, result: dict[str, Any]) -> None:
            self._note_memory(executor, result["memory"])
            self.trial += result["trial"]
            self._versions.note(result["versions"], anew=result.get("kept", False))
            if "execution" in result:
                self._pin(result["machine"], result["execution"])
            if isinstance(work.payload, Calibration):
                self.execution = self._executions[result["machine"]]
                self._start_seconds = progress.seconds
                self._end_trial()
                return
            self._count(result)
            progress.count_bad(result["bad"])
            progress.advance(work.rows, result["seconds"])
            if self._share is not None:
                self._share.advance(work.rows)

        asked = find_execution(self._run, self._name, self.workers)
        setting = replace(
            embed_setting(self._run, self._name, asked),
            executions=dict(self._executions),
            rows=sum(shard.rows for shard in shards),
        )
        name = f"{self._run.job.name}-embed-{self._name}"
        executor = self._cluster.executor(EmbedWorker, (setting,), self.workers, name)

        def lost(worker: LostWorker) -> None:
            self._lost[worker.cause] += 1
            progress.count_lost(worker.cause)

        def running(workers: int) -> None:
            gpus = self._cluster.machines().gpus if self.workers.gpus_per_worker else 0.0
            progress.report_workers(replace(self.workers, workers=workers), gpus)

        units = self._units(shards)
        failed = dispatch(
            units,
            executor,
            on_done=done,
            without_rows=_without_rows,
            first=first,
            share=self._share,
            on_lost=lost,
            on_running=running,
        )
        if failed:
            raise RunError(
                f"{counted(len(failed), 'shard')} of input {self._name} failed {failed[0].attempts} times; "
                f"first {failed[0].id}: {failed[0].detail}; run again to retry them, the other shards are kept"
            )

    def figures(self) -> dict[str, Any]:
        """What report.json holds beside rows and seconds."""
        return {
            "encoded": self._encoded,
            "trial": self.trial,
            "workers": self.workers.workers,
            "threads_per_worker": self.workers.threads,
            "batch": self.execution.batch,
            "least_batch": self._least,
            "start_seconds": round(self._start_seconds, 3),
            "parts": {part: round(seconds, 3) for part, seconds in self._parts.items()},
            "limited_by": self.limited_by(),
            "bad": dict(self.bad),
            "taken_over": self.rows["copied"] + self.rows["duplicate"],
            "workers_lost": dict(self._lost),
            "worker_memory": self._memory,
        }

    def limited_by(self) -> str:
        """What would make the stage faster."""
        return limited_by(self._parts, self._run.specs[self._name].kind, self.execution.device)

    def _end_trial(self) -> None:
        if self._share is not None:
            self._share.end_trial()

    def _note_memory(self, executor: Executor, peak: int) -> None:
        """From the most that a worker took follows what those started later reserve."""
        if peak > self._memory:
            self._memory = peak
            executor.reserve_memory(peak)

    def _units(self, shards: Sequence[Shard]) -> Iterator[Work]:
        for shard in shards:
            assert self.execution.batch is not None
            again = embedding_path(self._name, self._embedding_id, shard.id) in self._mended
            yield Work(shard.id, self._job(shard, self.execution.batch, again), shard.rows)

    def _job(self, shard: Shard, batch: int, again: bool) -> ShardJob:
        return ShardJob(shard, batch, again, executions=dict(self._executions))

    def _pin(self, machine: str, chosen: Execution) -> None:
        """Fixes how the encoder runs on a kind of machine; from now on as plan.json has it."""
        fixed = pin_batch_settings(self._run, self._name, self.workers, chosen, machine)
        self._executions[machine] = fixed
        if machine == self._machine:
            self.execution = fixed

    def _count(self, result: dict[str, Any]) -> None:
        self._encoded += result["encoded"]
        self._parts.update(result["seconds"])
        self.bad.update(result["bad"])
        self.rows.update(result["counts"])
        if result["batch"]:
            self._least = min(self._least or result["batch"], result["batch"])


def limited_by(parts: Mapping[str, float], kind: str, device: str) -> str:
    """Names what the stage spent its time on, and what would help.

    A model on a CPU has the cores that also decode, so the larger share of them counts, if they are busy; a GPU that
    waits at all could do more. ``parts`` are seconds of ``read``, ``prepare``, ``model``, ``write`` and ``waiting``.

    >>> limited_by({"model": 9.0, "waiting": 2.0, "prepare": 4.0}, "image", "cpu")
    'model-bound: add CPU or a GPU'
    >>> limited_by({"model": 9.0, "waiting": 2.0, "prepare": 4.0}, "image", "cuda")
    'decode-bound: add CPU'
    """
    read, prepare, model, write, waiting = (
        parts.get(part, 0.0) for part in ("read", "prepare", "model", "write", "waiting")
    )
    cpu = device == "cpu"
    idle = waiting > model * (1.0 if cpu else 0.15)
    if write > model + waiting:
        return "write-bound: faster storage or larger shards"
    if idle and read > prepare:
        return "read-bound: faster storage or more workers"
    if prepare > model if cpu else idle:
        return f"{'tokenize' if kind == 'text' else 'decode'}-bound: add CPU"
    return "model-bound: add CPU or a GPU" if cpu else "model-bound: add a GPU"


def embed_setting(run: Run, name: str, chosen: Execution) -> EmbedSetting:
    """What the workers of one input are sent."""
    return EmbedSetting(
        name=name,
        spec=run.specs[name],
        embedding_id=embedding_ids(run)[name],
        encoding=encoding_id(run, name),
        after=run.after,
        recheck=run.recheck,
        columns=input_columns(run, name),
        corpus=run.corpus,
        storage=run.storage,
        device=chosen.device,
        threads=chosen.threads,
        versions=known_versions(run, name),
        asked=chosen,
        noted=run.train_columns if name == run.inputs[0] else (),
    )


def pending_shards(run: Run, name: str) -> list[Shard]:
    """Shards of one input without an embedding file (or whose pictures changed, or that held bad rows, if asked)."""
    if run.unjoined:
        return []
    embedding_id = embedding_ids(run)[name]
    done = done_shards(run.storage, name, embedding_id)
    again: set[str] = set()
    if run.retry_bad or run.recheck:
        paths = {shard: embedding_path(name, embedding_id, shard.id) for shard in run.shards if shard.id in done}
        with ThreadPoolExecutor(_READERS) as pool:
            stale = pool.map(lambda item: _stale(run, name, *item), paths.items())
            again = {shard.id for shard, is_stale in zip(paths, stale, strict=True) if is_stale}
    return [shard for shard in run.shards if shard.id not in done or shard.id in again]


def _stale(run: Run, name: str, shard: Shard, path: str) -> bool:
    recheck = run.recheck and run.specs[name].kind == "image"
    rejects = ["rejects"] if run.is_multi_value(name) else []
    table = run.storage.read_table(path, columns=["ok", *rejects, *(["source_stamp"] if recheck else [])])
    if run.retry_bad and not pc.all(table.column("ok"), min_count=0).as_py():
        return True
    if run.retry_bad and any(table.column(column).null_count < table.num_rows for column in rejects):
        return True
    if not recheck:
        return False
    columns = input_columns(run, name)
    inputs = InputValues(run.corpus.read(shard, columns.names), columns, shard.folder)
    changed: bool = inputs.stamps() != table.column("source_stamp").to_pylist()
    return changed


def _announce_repairs(run: Run, name: str, shards: Sequence[Shard]) -> Repairs:
    """The embedding files that are there and will be made again."""
    if not (run.retry_bad or run.recheck):
        return Repairs(run.storage, [])
    embedding_id = embedding_ids(run)[name]
    there = done_shards(run.storage, name, embedding_id) & {shard.id for shard in shards}
    return Repairs(run.storage, [embedding_path(name, embedding_id, shard_id) for shard_id in sorted(there)])


def _calibrations(shards: Sequence[Shard]) -> list[Work]:
    """Shards to find the batch with, each tried if the one before crashes its worker; the last one reads no row."""
    rows = sum(shard.rows for shard in shards)
    samples = [*dict.fromkeys([shards[0], shards[len(shards) // 2]]), None]
    more = tuple(shards[1 :: max(1, len(shards) // _SAMPLED_SHARDS)][:_SAMPLED_SHARDS])
    return [Work("calibration", Calibration(sample, rows, more), 0) for sample in samples]


def input_columns(run: Run, name: str) -> Columns:
    """Where the corpus holds the values of an input."""
    names, kind = run.columns(name), run.specs[name].kind
    return Columns(
        kind=kind,
        names=tuple(names),
        weights=run.weights_column(name),
        multi_value=run.is_multi_value(name),
        pictures=pictures_of(run, name) if kind == "image" else None,
    )


def pictures_of(run: Run, name: str) -> Pictures:
    """Finds the pictures of an input, within the limits of the job."""
    limits = run.job.limits
    return Pictures(
        run.picture_root(name),
        outside_corpus=limits.outside_corpus,
        http=limits.http,
        max_bytes=limits.max_picture_bytes,
        http_timeout=limits.http_timeout,
        http_concurrency=limits.http_concurrency,
        storage_options=storage_options(run.job),
    )


def _without_rows(work: Work, rows: Sequence[int]) -> Work:
    return replace(work, payload=replace(work.payload, skip=(*work.payload.skip, *rows)))
