"""What every stage knows about one run of a job: where rows come from, how they are encoded, where results go."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any, TypedDict, Unpack

import pyarrow as pa

from barycenter.fusion.encoders import Description, EncoderSpec, Preprocessing
from barycenter.fusion.errors import JobError, RunError
from barycenter.fusion.heads.labels import Found
from barycenter.infra.corpus import Corpus, Shard, Source
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.join.buckets import open_joined_corpus
from barycenter.infra.corpus.join.partition import Join
from barycenter.infra.deadline import Deadline, deadline_in, until
from barycenter.infra.job.models import InputJob, Job
from barycenter.infra.storage import Storage
from barycenter.infra.storage.credentials import load_credentials_block
from barycenter.infra.storage.json_files import read_json
from barycenter.infra.versions.lease import Lease, hold, newest_term
from barycenter.infra.versions.manifests import versions
from barycenter.tasks.run.encoder_cache import cached_description
from barycenter.tasks.run.input_tables import inputs_of, open_tables
from barycenter.tasks.run.input_values import is_multi_value
from barycenter.tasks.run.plan_file import adopt_once_more, as_adopted, resolve_engine, times_adopted
from barycenter.tasks.run.progress_file import begin_progress


class Flags(TypedDict, total=False):
    """What one run is asked for beside its job: the flags of `barycenter run`."""

    recheck: bool
    retry_bad: bool
    refit: bool
    adopt: bool
    as_of: date | None


NO_FLAGS: Flags = {"recheck": False, "retry_bad": False, "refit": False, "adopt": False, "as_of": None}
"""A run without any."""


class Run:
    """A job bound to its corpus, its shards, its encoders and its output; built before Ray or Prefect start.

    A plain class on purpose: Prefect walks through dataclasses and lists that it is handed, a million shards long.

    Attributes:
        job: The job, with absolute paths.
        flags: What the run is asked for beside the job; each is an attribute, too.
        recheck: Whether to embed again what refers to pictures that changed.
        retry_bad: Whether to embed again the shards that held bad inputs.
        refit: Whether to fit the alignment again although a committed one has the same settings.
        adopt: Whether to embed anew where other versions of the libraries give other vectors.
        as_of: The last day whose partitions of the corpus are taken; None where all are.
        corpus: The opened corpus, the inputs' own tables joined to it.
        shards: Every shard, in corpus order; none as long as the tables are not joined.
        join: How the inputs' own tables come to the corpus; None where no input has one.
        specs: How each input is encoded.
        engine: What runs the models, as plan.json has it.
        encoders: Width, fingerprint and id of each input's encoder.
        partitions: What a sample says of the partition columns, once it was read.
        storage: The output folder.
        target: What a sample of the target column showed, once it was looked at.
        split_names: How often each value of the split column occurs in that sample, likewise.
        left_out: Rows whose key another row counts for, by shard id, once the embeddings were looked at.
        after: Number of the newest version before the run, 0 where there is none.
        lease: The lease of the output, while it is held.
        prepared_after: Number of the lease's newest term before anything was read.
        deadline: When the time that the job allows is over, counted from before anything was read.
    """

    def __init__(self, job: Job, **flags: Unpack[Flags]) -> None:
        self.job, self.deadline = job, deadline_of(job)
        if job.storage.credentials_block is not None:
            load_credentials_block(job.storage.credentials_block)
        self.flags = NO_FLAGS | flags
        self.recheck, self.retry_bad = self.flags["recheck"], self.flags["retry_bad"]
        self.refit, self.adopt, self.as_of = self.flags["refit"], self.flags["adopt"], self.flags["as_of"]
        self.storage = Storage(job.output.path, job.storage.endpoint_url)
        self.lease: Lease | None = None
        self.after = max(versions(self.storage), default=0)
        term = newest_term(self.storage)
        self.prepared_after = term.number if term is not None else 0
        self.tables = open_tables(job, storage_options(job), self.as_of)
        self._table_of = {name: table.corpus for table in self.tables for name in inputs_of(table, job)}
        self.corpus: Corpus = self.tables[0].corpus
        self.join: Join | None = None
        self.partitions: Any = None
        self.shards: tuple[Shard, ...] = ()
        self.target: Found | None = None
        self.left_out: Mapping[str, tuple[int, ...]] | None = None
        self.split_names: dict[str, int] | None = None
        if len(self.tables) > 1:
            self.join = Join.plan(str(job.corpus.key), self.tables, job.corpus, job.limits.join_memory_mb << 20)
            self.open_joined()
        else:
            self.shards = tuple(self.corpus.shards(job.corpus.rows_per_shard))
        lender = Storage(job.alignment.from_, job.storage.endpoint_url) if job.alignment.from_ is not None else None
        reused = [Storage(root, job.storage.endpoint_url) for root in job.output.reuse]
        self.engine = resolve_engine(self.storage, lender, reused)
        self.specs = {name: self._spec(name, spec) for name, spec in job.inputs.items()}
        self._described: dict[str, Description] = {}
        for name, spec in self.specs.items():
            try:
                self._described[name] = cached_description(spec)
            except JobError as error:
                raise error.under(f"inputs.{name}") from None
        self.encoders = {
            name: as_adopted(described, times_adopted(self.storage, name, described.encoder_id))
            for name, described in self._described.items()
        }

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """Holds the output for the length of the block; within another such block, goes on with its lease.

        Raises:
            RunError: Another process wrote to the output since this run was prepared.
            BusyError: Another process holds it, and ``output.busy`` is not ``wait``.
            DeadlineError: In the block, where ``limits.deadline`` is over.
        """
        if self.lease is not None:
            yield self.lease
            return
        with until(self.deadline), hold(self.storage, f"run {self.job.name}", busy=self.job.output.busy) as lease:
            if lease.previous != self.prepared_after:
                raise RunError(f"{self.storage.uri()}: another process wrote here after it was prepared; run again")
            self.lease = lease
            try:
                begin_progress(self.storage)
                yield lease
            finally:
                self.lease = None
        self.prepared_after = lease.number

    def adopt_encoder(self, name: str) -> None:
        """Gives the encoder of an input a new id, for the vectors that it has under other versions of libraries."""
        described = self._described[name]
        self.encoders[name] = as_adopted(described, adopt_once_more(self.storage, name, described.encoder_id))

    def open_joined(self) -> None:
        """Takes the joined corpus for the corpus, if it is there."""
        if self.join is not None and self.storage.exists(self.join.record):
            record = read_json(self.storage, self.join.record)
            files = Files(storage_options(self.job))
            self.corpus = open_joined_corpus(self.join, record, self.storage, self.job.corpus, files)
            self.shards = tuple(self.corpus.shards(self.job.corpus.rows_per_shard))

    @property
    def sources(self) -> list[Source]:
        """The files of the corpus and of the inputs' own tables."""
        return [source for table in self.tables for source in table.corpus.sources]

    @property
    def listing(self) -> dict[str, Any]:
        """``Corpus.listing`` of the corpus and the inputs' own tables together."""
        listings = [table.corpus.listing for table in self.tables]
        passed_over: Counter[str] = Counter()
        for seen in listings:
            passed_over.update(seen["files"]["passed_over"])
        taken = sum(seen["files"]["taken"] for seen in listings)
        members = sum(seen["members"]["passed_over"] for seen in listings if "members" in seen)
        files = {"files": {"taken": taken, "passed_over": dict(passed_over)}}
        return files | ({"members": {"passed_over": members}} if members else {})

    def picture_root(self, name: str) -> str:
        """The folder that an input's picture paths may not leave: that of the table which names them."""
        return self._table_of[name].root

    @property
    def unjoined(self) -> bool:
        """Whether tables are yet to be joined before there are shards."""
        return not self.shards

    def columns(self, name: str) -> list[str]:
        """The columns of the corpus that an input reads."""
        columns = self.job.inputs[name].columns
        return columns if self.join is None else [f"{name}.{column}" for column in columns]

    def is_multi_value(self, name: str) -> bool:
        """Whether rows have several values of an input, to be averaged: a list column, or a table of its own."""
        vector = self.specs[name].kind == "vector"
        return any(is_multi_value(self.corpus.columns[column], vector) for column in self.columns(name))

    def weights_column(self, name: str) -> str | None:
        """The column of weights for an input's several values, if any."""
        column = self.job.inputs[name].weights_column
        return column if column is None or self.join is None else f"{name}.{column}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in the order of the job file."""
        return tuple(self.job.inputs)

    @property
    def train_columns(self) -> tuple[str, ...]:
        """The columns that decide labels, sides and groups of rows."""
        train = self.job.train
        columns = (train.target, train.split, train.group_by) if train is not None else ()
        return tuple(dict.fromkeys(column for column in columns if column is not None))

    @property
    def widths(self) -> dict[str, int]:
        """Embedding width of each input."""
        return {name: description.dim for name, description in self.encoders.items()}

    @property
    def rows(self) -> int:
        """Rows of the corpus; of the table at ``corpus.path`` alone as long as others are not joined to it."""
        parts = self.corpus.sources if self.unjoined else self.shards
        return sum(part.rows for part in parts)

    def blocks(self, rows: int) -> list[tuple[Shard, ...]]:
        """Consecutive shards grouped into fixed blocks of about ``rows`` rows, whatever the number of workers."""
        return blocks_of(self.shards, rows)

    def _spec(self, name: str, spec: InputJob) -> EncoderSpec:
        limits = self.job.limits
        preprocessing = spec.preprocessing.model_dump() if spec.preprocessing is not None else None
        if preprocessing is not None and None in preprocessing.values():
            raise JobError(f"inputs.{name}.preprocessing", "give all of resize, crop, mean and std")
        return EncoderSpec(
            kind=spec.kind,
            encoder=spec.encoder,
            weights=spec.weights,
            preprocessing=Preprocessing(**preprocessing) if preprocessing is not None else None,
            trust_remote_code=spec.trust_remote_code,
            width=self._vector_width(name) if spec.kind == "vector" else None,
            max_pixels=limits.max_pixels,
            formats=tuple(limits.formats),
            long_text=spec.long_text,
            dtype=spec.dtype,
            engine=self.engine,
            reproducible=spec.reproducible,
        )

    def _vector_width(self, name: str) -> int:
        column = self.job.inputs[name].columns[0]
        corpus = self._table_of[name]
        declared = corpus.columns[column]
        while pa.types.is_list(declared) and pa.types.is_nested(declared.value_type):
            declared = declared.value_type
        if pa.types.is_fixed_size_list(declared):
            return int(declared.list_size)
        for shard in corpus.shards(self.job.corpus.rows_per_shard):
            for value in corpus.read(shard, [column]).column(column):
                vector = value.as_py()
                while isinstance(vector, list) and vector and isinstance(vector[0], list):
                    vector = vector[0]
                if isinstance(vector, list) and vector:
                    return len(vector)
                if vector is not None and not isinstance(vector, list):
                    raise JobError(f"inputs.{name}.column", _no_vector(column, vector, str(declared)))
        raise JobError(f"inputs.{name}.column", f"`{column}` holds no vector; name another column")


def _no_vector(column: str, value: object, kind: str) -> str:
    advice = "write the table as Parquet or JSON Lines, where vectors are lists (columns of CSV and TSV are text)"
    return f"`{column}` is {kind} (found {value!r:.40}), and kind: vector reads lists of numbers; {advice}"


def deadline_of(job: Job) -> Deadline | None:
    """When the time that a job allows is over, from now on; None where it allows any."""
    return deadline_in(job.limits.deadline_seconds, f"limits.deadline ({job.limits.deadline})")


def blocks_of(shards: Sequence[Shard], rows: int) -> list[tuple[Shard, ...]]:
    """Consecutive shards grouped into blocks of about ``rows`` rows."""
    blocks: list[tuple[Shard, ...]] = []
    current: list[Shard] = []
    held = 0
    for shard in shards:
        if current and held + shard.rows > rows:
            blocks.append(tuple(current))
            current, held = [], 0
        current.append(shard)
        held += shard.rows
    blocks.append(tuple(current))
    return blocks


def storage_options(job: Job) -> dict[str, Any]:
    """Fsspec options of the job; credentials come from the environment alone."""
    return {"endpoint_url": job.storage.endpoint_url} if job.storage.endpoint_url else {}


def describe_widths(widths: Mapping[str, int]) -> str:
    """Widths for a message, e.g. ``text 384, image 1280``."""
    return ", ".join(f"{name} {width}" for name, width in widths.items())


def shows_rate(figures: Mapping[str, Any]) -> bool:
    """Whether a stage's figures say how fast it is: it worked, and not mostly by taking rows over."""
    rows: int = figures.get("rows", 0)
    return rows > 2 * int(figures.get("taken_over", 0))
