"""What a worker of the embed stage does: read a shard, encode it, commit its file. Imports neither Prefect nor Ray."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from barycenter.fusion.encoders import EncoderSpec, load
from barycenter.fusion.encoders.batch_size import find_batch_size
from barycenter.fusion.encoders.pipeline import Pipeline
from barycenter.fusion.errors import BadInputError, Reason
from barycenter.infra.clock import current_clock
from barycenter.infra.corpus import BAD, Corpus, Shard, misfits_by_row
from barycenter.infra.corpus.pictures.http import check_network
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.embed.known_rows import KnownRows
from barycenter.tasks.embed.shard_rows import embed_rows, note
from barycenter.tasks.run.input_values import Columns, InputValues

CALIBRATION_ROWS = 512
_READERS = 8
EMBEDDING_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["reason"],
    "use_byte_stream_split": ["vector.list.element"],
}


@dataclass(frozen=True, slots=True)
class EmbedSetting:
    """What a worker needs to embed shards of one input; plain data, sent once per worker.

    Attributes:
        encoding: What the vectors depend on beside their input.
        after: Number of the version that was the newest when the run began.
        recheck: Whether a picture counts as unchanged only once it was read.
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


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard to embed; rows in ``skip`` crashed a worker before and are recorded, not tried.

    An embedding file never changes under those that read it, unless a repair was asked for (``replace``): of two runs
    on one output the first to finish a shard has done it.
    """

    shard: Shard
    batch: int
    replace: bool = False
    skip: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Before the first shard: the batch that runs fastest on ``sample``, for ``rows`` to come; a small one without."""

    sample: Shard | None
    rows: int


class EmbedWorker:
    """Holds one encoder and embeds the shards that it is handed, two at a time.

    One shard is read and prepared while another has the model, or is written; the model takes them in turn.
    """

    concurrency = 2

    def __init__(self, setting: EmbedSetting) -> None:
        self.setting = setting
        self.pipeline = Pipeline(load(setting.spec, device=setting.device), setting.threads)
        self.known = KnownRows(setting.storage, setting.encoding)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._fits: int | None = None

    def run(self, payload: ShardJob | Calibration) -> dict[str, Any]:
        """Embeds one shard and commits its file, or finds the batch.

        Returns:
            Of a shard, counts and seconds; of a calibration, the batch in rows or tokens.
        """
        return self._calibrated(payload) if isinstance(payload, Calibration) else self._embedded(payload)

    def try_rows(self, payload: ShardJob, rows: Sequence[int]) -> None:
        """Embeds some rows of a shard and forgets the vectors; used to find the row that crashes a worker."""
        table = self.setting.corpus.read(payload.shard, self._columns()).take(list(rows))
        inputs = InputValues(table, self.setting.columns, payload.shard.folder)
        inputs.embed(self.pipeline, batch=payload.batch)

    def _embedded(self, job: ShardJob) -> dict[str, Any]:
        setting, clock = self.setting, current_clock()
        began = clock.monotonic()
        table = setting.corpus.read(job.shard, self._columns())
        refused = {
            row: BadInputError(Reason.UNREADABLE_ROW, problem)
            for row, problem in enumerate(table.column(BAD).to_pylist())
            if problem is not None
        }
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
            self.pipeline,
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
        self._commit(job, inputs.table(setting.corpus.keys(job.shard, table), result, rows.digests), rows.counts)
        seconds.update(result.seconds)
        return {
            "rows": job.shard.rows,
            "encoded": result.encoded,
            "bad": Counter(reason for reason in result.reasons if reason is not None),
            "seconds": dict(seconds) | {"write": clock.monotonic() - embedded},
            "batch": result.batch_size,
        }

    def _commit(self, job: ShardJob, table: pa.Table, counts: Mapping[str, int]) -> None:
        """Writes the embedding file; one that is to be made again, and would hold the same, is let be."""
        setting = self.setting
        path = embedding_path(setting.name, setting.embedding_id, job.shard.id)
        if job.replace and table.equals(setting.storage.read_table(path)):
            return
        table = table.replace_schema_metadata(note(setting.encoding, setting.after, counts))
        write = setting.storage.write_table if job.replace else setting.storage.create_table
        write(path, table, **EMBEDDING_PARQUET)
        self.known.remember(path, table)

    def _calibrated(self, job: Calibration) -> dict[str, Any]:
        if job.sample is None:
            return {"batch": int(find_batch_size(self.pipeline, [], rows=job.rows))}
        table = self.setting.corpus.read(job.sample, self._columns())
        inputs = InputValues(table, self.setting.columns, job.sample.folder)
        values = [value for value in inputs.values if value is not None][:CALIBRATION_ROWS]
        return {"batch": int(find_batch_size(self.pipeline, values, rows=job.rows))}

    def _columns(self) -> list[str]:
        setting = self.setting
        wanted = [setting.corpus.key, *setting.columns.names, setting.columns.weights]
        return list(dict.fromkeys(column for column in wanted if column is not None))
