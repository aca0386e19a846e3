"""Rows that are in no corpus: read, encoded and averaged as those of a fused data set, in this process."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import BadInputError, JobError, Reason
from barycenter.fusion.fuser import BATCHES, Fuser
from barycenter.infra.corpus import BAD, Corpus, Pictures, Shard, misfits_by_row, open_corpus
from barycenter.infra.job.fields import NO_SECRET
from barycenter.infra.job.models import CorpusJob, LimitsJob
from barycenter.infra.storage import Storage
from barycenter.infra.userinfo import holds_secret
from barycenter.infra.words import counted
from barycenter.tasks.run.input_values import Columns, InputValues, is_multi_value

_ROWS = 2048
_ON = "--on"
_FLAGS = {"limits.outside_corpus": "--outside-corpus", "limits.http": "--http"}


@dataclass(frozen=True)
class EncodedRows:
    """Some new rows.

    Attributes:
        keys: Key of each; None where it has none.
        table: The columns that were asked for and are there.
        views: ``{input: (n, d) float32}`` of all inputs, a row of NaN where one is missing.
        fused: (n, dim) in the features' number format, NaN where a row has no input.
    """

    keys: list[str | None]
    table: pa.Table
    views: dict[str, NDArray[np.float32]]
    fused: NDArray[np.floating]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(n,) whether a row has any input."""
        return np.asarray(~np.isnan(self.fused[:, 0]))


@dataclass
class Tally:
    """What became of new rows.

    Attributes:
        rows: Rows read.
        unusable: Rows without any input.
        missing: Rows without an input, by input.
        bad: Why, by input and reason; values that are only absent are no bad ones.
        examples: The first of each, key and detail.
    """

    rows: int = 0
    unusable: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    bad: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """What a user should know: which inputs rows lack, and why."""
        for name, count in self.missing.items():
            reasons = [
                f"{reason} {number:,} ({_with_flags(self.examples[name, reason])})"
                for reason, number in self.bad[name].most_common()
            ]
            if count:
                yield f"{count:,} of {counted(self.rows, 'row')} without `{name}`" + (
                    f": {', '.join(reasons)}" if reasons else ""
                )
        if self.unusable:
            yield f"{self.unusable:,} of {counted(self.rows, 'row')} without any input that can be used: null results"


class NewRows:
    """The rows of a table that the encoders, the alignment and the average of a fused data set are used on.

    An input reads the columns that it reads in the job, or those that are called ``<input>.<column>``; one of which the
    table has none is missing in every row. Columns of the table keep their names.

    Attributes:
        tally: What became of the rows that were read so far.
    """

    def __init__(
        self, fuser: Fuser, path: str, *, limits: LimitsJob | None = None, endpoint_url: str | None = None
    ) -> None:
        """Opens the table.

        Raises:
            JobError: On ``--on``: it cannot be read, or has no column of any input.
        """
        if holds_secret(path):
            raise JobError("--on", NO_SECRET)
        self.fuser, self._manifest, self._limits = fuser, fuser.manifest, limits or LimitsJob()
        self._options = {"endpoint_url": endpoint_url} if endpoint_url else {}
        self.tally = Tally(bad={name: Counter() for name in self._manifest.inputs})
        try:
            corpus = open_corpus(CorpusJob(path=path, rows_per_shard=_ROWS), self._limits, self._options)
            self.corpus = corpus.with_key(self._manifest.key if self._manifest.key in corpus.columns else None)
            self._columns = {
                name: columns for name in self._manifest.inputs if (columns := self._columns_of(name)) is not None
            }
            self.corpus.check_columns(
                {"": [name for columns in self._columns.values() for name in _present(columns, corpus)]}
            )
        except JobError as error:
            raise JobError(_FLAGS.get(error.key, _ON), error.problem) from None
        if not self._columns:
            wanted = [f"{', '.join(_names(entry))} ({name})" for name, entry in self._manifest.inputs.items()]
            raise JobError(_ON, f"{path} has no column of any input; the inputs read {'; '.join(wanted)}")

    @property
    def columns(self) -> list[str]:
        """The columns of the table."""
        return list(self.corpus.columns)

    def each(self, columns: Sequence[str] = ()) -> Iterator[EncodedRows]:
        """The rows in their order, with those of some columns that the table has."""
        asked = [name for name in dict.fromkeys(columns) if name in self.corpus.columns]
        for shard in self.corpus.shards(_ROWS):
            yield self._encoded(shard, asked)

    def _encoded(self, shard: Shard, asked: list[str]) -> EncodedRows:
        read = list(dict.fromkeys([*asked, *(name for each in self._columns.values() for name in _read(each))]))
        table = self.corpus.read(shard, read)
        keys = self.corpus.keys(shard, table)
        views = {name: self._view(name, table, shard, keys) for name in self._manifest.inputs}
        rows = EncodedRows(keys, table.select(asked), views, self.fuser.fuse(views))
        self.tally.rows += len(keys)
        self.tally.unusable += int((~rows.usable).sum())
        return rows

    def _view(self, name: str, table: pa.Table, shard: Shard, keys: list[str | None]) -> NDArray[np.float32]:
        if name not in self._columns:
            self.tally.missing[name] += len(keys)
            return np.full((len(keys), self._manifest.inputs[name]["dim"]), np.nan, np.float32)
        columns = self._columns[name]
        values = InputValues(table, columns, shard.folder, _refused(table, columns))
        result = values.embed(self.fuser.pipeline(name), batch=BATCHES[columns.kind])
        self.tally.missing[name] += int((~result.ok).sum())
        for row, reason in enumerate(result.reasons):
            if reason is not None and reason not in (Reason.NULL, Reason.EMPTY):
                self.tally.bad[name][reason] += 1
                self.tally.examples.setdefault((name, reason), f"{keys[row]}: {result.details[row] or reason}"[:120])
        return np.where(result.ok[:, None], result.vectors, np.float32(np.nan)).astype(np.float32, copy=False)

    def _columns_of(self, name: str) -> Columns | None:
        """How the table holds an input; None if it has no column of it."""
        entry, there = self._manifest.inputs[name], self.corpus.columns
        names = [f"{name}.{column}" if f"{name}.{column}" in there else column for column in _names(entry)]
        found = [column for column in names if column in there]
        if not found:
            return None
        weights = entry.get("spec", {}).get("weights_column")
        if weights is not None and weights not in there and f"{name}.{weights}" in there:
            weights = f"{name}.{weights}"
        if weights is not None and weights not in there:
            raise JobError(_ON, f"no column {weights!r}, the weights of inputs.{name}; add it, with a weight a value")
        kind = entry["kind"]
        several = any(is_multi_value(there[column], vector=kind == "vector") for column in found)
        return Columns(kind, tuple(names), weights, several, self._pictures() if kind == "image" else None)

    def _pictures(self) -> Pictures:
        limits = self._limits
        return Pictures(
            self.corpus.root,
            outside_corpus=limits.outside_corpus,
            http=limits.http,
            max_bytes=limits.max_picture_bytes,
            http_timeout=limits.http_timeout,
            http_concurrency=limits.http_concurrency,
            storage_options=self._options,
        )


def _with_flags(detail: str) -> str:
    """What is wrong with a value, with the option of a command where it names the key of a job file."""
    for key, flag in _FLAGS.items():
        detail = detail.replace(f"{key}: true", flag)
    return detail


def load_fuser(storage: Storage, manifest: Manifest) -> Fuser:
    """The encoders, the alignment and the average of a version of a fused data set."""
    options = {"endpoint_url": storage.endpoint_url} if storage.endpoint_url else {}
    filesystem = fsspec.core.url_to_fs(storage.root, **options)[0] if options else None
    return Fuser.load(storage.root, version=manifest.number, filesystem=filesystem)


def _names(entry: dict[str, Any]) -> list[str]:
    column = entry["spec"]["column"]
    return [column] if isinstance(column, str) else list(column)


def _read(columns: Columns) -> list[str]:
    return [*columns.names, *filter(None, [columns.weights])]


def _present(columns: Columns, corpus: Corpus) -> list[str]:
    return [name for name in _read(columns) if name in corpus.columns]


def _refused(table: pa.Table, columns: Columns) -> dict[int, BadInputError]:
    """Rows that could not be read, or of which a value of the input does not fit its column."""
    refused = {
        row: BadInputError(Reason.UNREADABLE_ROW, problem)
        for row, problem in enumerate(table.column(BAD).to_pylist())
        if problem is not None
    }
    for row, problems in misfits_by_row(table).items():
        for name in columns.names:
            if name in problems:
                refused[row] = BadInputError(Reason.WRONG_TYPE, f"column {name}: {problems[name]}")
    return refused
