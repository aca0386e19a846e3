"""What a worker of the embed stage does: read a shard, encode it, commit its file. Imports neither Prefect nor Ray."""

import resource
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import Any

import pyarrow as pa

from barycenter.fusion.encoders import EncoderSpec, load
from barycenter.fusion.encoders.pipeline import Pipeline
from barycenter.fusion.errors import BadInputError, JobError, Reason, RunError
from barycenter.infra.clock import current_clock
from barycenter.infra.corpus import BAD, Corpus, Shard, misfits_by_row
from barycenter.infra.corpus.pictures.http import check_network
from barycenter.infra.dispatch.executor import Failure
from barycenter.infra.logs import bound
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import EMBEDDING_PARQUET, embedding_path
from barycenter.tasks.embed.execution import Execution
from barycenter.tasks.embed.known_rows import KnownRows
from barycenter.tasks.embed.shard_rows import embed_rows, note, note_of_copy
from barycenter.tasks.embed.tuning import Tuning
from barycenter.tasks.embed.versions_check import KnownVersions, VersionsCheck, bound_of, evenly, metadata_of
from barycenter.tasks.run.input_values import Columns, InputValues
from barycenter.tasks.run.row_digests import table_digest, values_digest

CALIBRATION_ROWS = 512
_READERS = 8


@dataclass(frozen=True, slots=True)
class EmbedSetting:
    """What a worker needs to embed shards of one input; plain data, sent once per worker.

    Attributes:
        encoding: What the vectors depend on beside their input.
        after: Number of the version that was the newest when the run began.
        recheck: Whether a picture counts as unchanged only once it was read.
        versions: What the driver knows of the encoder.
        asked: What the job and the allocation say of the execution.
        executions: What plan.json had for each kind of machine when the stage began.
        rows: Rows to come.
        noted: Columns of the corpus that decide labels, sides and groups; the files say what they hold.
    """

    name: str
    spec: EncoderSpec
    embedding_id: str
    encoding: str
    after: int
    recheck: bool
    columns: Columns
    corpus: Corpus
    storage: Storage
    device: str
    threads: int
    versions: KnownVersions
    asked: Execution
    executions: Mapping[str, Execution] = field(default_factory=dict)
    rows: int = 0
    noted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard to embed; rows in ``skip`` crashed a worker before and are recorded, not tried.

    An embedding file never changes under those that read it, unless a repair was asked for (``replace``): of two runs
    on one output the first to finish a shard has done it. ``executions`` are by kind of machine; a worker of a kind
    that is not among them finds its own, and where there are none the batch is ``batch``.
    """

    shard: Shard
    batch: int
    replace: bool = False
    skip: tuple[int, ...] = ()
    executions: Mapping[str, Execution] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Before the first shard: what runs fastest on ``sample``, for ``rows`` to come; without one, what is usual.

    A sample of the vectors is kept where there is none, from ``more``, too, where that has not enough good rows.
    """

    sample: Shard | None
    rows: int
    more: tuple[Shard, ...] = ()


class EmbedWorker:
    """Holds one encoder and embeds the shards that it is handed, two at a time.

    One shard is read and prepared while another has the model, or is written; the model takes them in turn.
    """

    concurrency = 2

    def __init__(self, setting: EmbedSetting) -> None:
        self.setting = setting
        self.versions = VersionsCheck(setting.versions, setting.spec, setting.device, setting.storage)
        self._machine = self.versions.here["machine"]
        self._tuning = Tuning(self._load, setting.executions, self._machine, bound_of(setting.spec))
        folder = embedding_path(setting.name, setting.embedding_id, "").rpartition("/")[0]
        self.known = KnownRows(setting.storage, setting.encoding, folder)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._fits: int | None = None
        self._loading = Lock()
        self._checked: int | None = None
        if not (self.known.indexed and self.versions.are_accepted):
            self.pipeline  # noqa: B018 - a first run needs it at once, and so does the comparison with the kept sample

    @property
    def pipeline(self) -> Pipeline:
        """The encoder, loaded when the first row needs it.

        Raises:
            JobError: It cannot be loaded, or gives other vectors than before.
        """
        with self._loading:
            if self._checked is None:
                self._checked = self.versions.verify(self._loaded())
            return self._tuning.pipeline

    def _loaded(self) -> Pipeline:
        try:
            return self._tuning.pipeline
        except (JobError, RunError):
            raise
        except Exception as error:
            raise JobError(f"inputs.{self.setting.name}.encoder", Failure.of(error).line) from error

    def run(self, payload: ShardJob | Calibration) -> dict[str, Any]:
        """Embeds one shard and commits its file, or finds the batch.

        Returns:
            Of a shard, counts and seconds; of a calibration, how the encoder runs fastest. Of both, the kind of this
            machine, what the vectors are made under, the most memory so far in bytes, and how many rows were encoded to
            find out.
        """
        if isinstance(payload, Calibration):
            found = self._calibrated(payload)
        else:
            payload, tried = self._settled(payload)
            with bound(input=self.setting.name, shard=payload.shard.id):
                found = self._embedded(payload) | tried
        trial = found.get("trial", 0)
        if self._checked:
            trial, self._checked = trial + self._checked, 0
        about = {"machine": self._machine, "versions": self.versions.here, "memory": _peak_bytes()}
        return found | about | {"trial": trial}

    def try_rows(self, payload: ShardJob, rows: Sequence[int]) -> None:
        """Embeds some rows of a shard and forgets the vectors; used to find the row that crashes a worker."""
        table = self.setting.corpus.read(payload.shard, self._columns()).take(list(rows))
        inputs = InputValues(table, self.setting.columns, payload.shard.folder)
        inputs.embed(self.pipeline, batch=payload.batch)

    def _embedded(self, job: ShardJob) -> dict[str, Any]:
        setting, clock = self.setting, current_clock()
        began = clock.monotonic()
        columns = list(dict.fromkeys([*self._columns(), *setting.noted]))
        content = setting.corpus.raw_rows(job.shard)
        raw = None
        if content is not None and setting.columns.pictures is None:
            raw = setting.corpus.rows_digest(job.shard, columns, content)
        if raw is not None and not (job.replace or job.skip):
            known = self.known.shard(raw, job.shard.rows)
            if known is not None:
                return self._taken_over(job, known, began)
        table = setting.corpus.read(job.shard, columns, content)
        refused = {
            row: BadInputError(Reason.UNREADABLE_ROW, problem)
            for row, problem in enumerate(table.column(BAD).to_pylist())
            if problem is not None
        }
        if refused:
            raw = None  # rows that cannot be read are named by the place in the file
        for row, problems in misfits_by_row(table).items():
            misfit = next(((name, problems[name]) for name in self._columns() if name in problems), None)
            if misfit is not None and misfit[0] != setting.corpus.key:
                refused[row] = BadInputError(Reason.WRONG_TYPE, "column {}: {}".format(*misfit))
        refused |= {row: BadInputError(Reason.POISONED, "this row crashed its worker") for row in job.skip}
        inputs = InputValues(table, setting.columns, job.shard.folder, refused)
        asked = clock.monotonic()
        seconds = Counter({"read": asked - began})
        rows = embed_rows(
            inputs,
            self.known,
            lambda: self.pipeline,
            batch=min(job.batch, self._fits or job.batch),
            readers=self._readers,
            recheck=setting.recheck,
        )
        result = rows.result
        details = [*result.details, *(bad.detail for bad in result.bad)]
        check_network(job.shard.source, details, rows.tried, asked)
        if 0 < result.batch_size < job.batch:
            self._fits = min(result.batch_size, self._fits or result.batch_size)
        embedded = clock.monotonic()
        made = inputs.table(setting.corpus.keys(job.shard, table), result, rows.digests)
        noted = {name: values_digest(table.column(name)) for name in setting.noted}
        holds = table_digest(made, result.vectors)
        self._commit(job, made, note(setting.encoding, setting.after, rows.counts, holds, noted, raw))
        seconds.update(result.seconds)
        return {
            "rows": job.shard.rows,
            "encoded": result.encoded,
            "counts": dict(rows.counts),
            "bad": Counter(reason for reason in result.reasons if reason is not None),
            "seconds": dict(seconds) | {"write": clock.monotonic() - embedded},
            "batch": result.batch_size,
        }

    def _taken_over(self, job: ShardJob, known: pa.Table, began: float) -> dict[str, Any]:
        """Commits what is known of a shard that is read from the same bytes as another was."""
        clock = current_clock()
        read = clock.monotonic()
        about, counts = note_of_copy(known, self.setting.after)
        self._commit(job, known, about)
        bad = Counter(known.column("reason").drop_null().to_pylist())
        seconds = {"read": read - began, "write": clock.monotonic() - read}
        return {"rows": job.shard.rows, "encoded": 0, "counts": counts, "bad": bad, "seconds": seconds, "batch": 0}

    def _commit(self, job: ShardJob, table: pa.Table, about: Mapping[bytes, bytes]) -> None:
        """Writes the embedding file; one that is to be made again, and would hold the same, is let be."""
        setting = self.setting
        path = embedding_path(setting.name, setting.embedding_id, job.shard.id)
        if job.replace and table.equals(setting.storage.read_table(path)):
            return
        table = table.replace_schema_metadata({**about, **metadata_of(self.versions.here)})
        write = setting.storage.write_table if job.replace else setting.storage.create_table
        write(path, table, **EMBEDDING_PARQUET)
        self.known.remember(path, table)

    def _settled(self, job: ShardJob) -> tuple[ShardJob, dict[str, Any]]:
        """The shard as this kind of machine runs it; where nobody knew how, what was found."""
        if not job.executions:
            return job, {}
        if self._tuning.execution is None and self._machine not in job.executions:
            self.pipeline  # noqa: B018 - compared with the kept sample before it is tried
        sample, rows_to_come = partial(self._values, job.shard, job.skip), max(self.setting.rows, job.shard.rows)
        execution, rows = self._tuning.settle(job.executions, self.setting.asked, sample, rows_to_come)
        found = {} if self._machine in job.executions else {"execution": execution}
        return replace(job, batch=execution.batch or job.batch), found | {"trial": rows}

    def _calibrated(self, job: Calibration) -> dict[str, Any]:
        values = self._values(job.sample) if job.sample is not None else []
        execution, rows = self._tuning.settle({}, self.setting.asked, lambda: values, job.rows)
        kept, encoded = self.versions.keep(self.pipeline, self._candidates(values, job.more)) if values else (False, 0)
        return {"execution": execution, "kept": kept, "trial": rows + encoded}

    def _candidates(self, values: list[object], more: Sequence[Shard]) -> Iterator[object]:
        yield from evenly(values)
        for shard in more:
            yield from evenly(self._values(shard))

    def _values(self, shard: Shard, skip: Sequence[int] = ()) -> list[object]:
        """Values of the first rows, without those that are null."""
        first = replace(shard, stop=min(shard.stop, shard.start + CALIBRATION_ROWS))
        table = self.setting.corpus.read(first, self._columns())
        if skip:
            table = table.take([row for row in range(table.num_rows) if row not in skip])
        values = InputValues(table, self.setting.columns, shard.folder).values
        return [value for value in values if value is not None][:CALIBRATION_ROWS]

    def _load(self, *, onednn: bool, model_threads: int | None) -> Pipeline:
        setting = self.setting
        spec = setting.spec if onednn else replace(setting.spec, onednn=False)
        return Pipeline(load(spec, device=setting.device), setting.threads, model_threads)

    def _columns(self) -> list[str]:
        setting = self.setting
        wanted = [setting.corpus.key, *setting.columns.names, setting.columns.weights]
        return list(dict.fromkeys(column for column in wanted if column is not None))


def _peak_bytes() -> int:
    """The most memory that this process has taken; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
