"""The rows of a corpus: cut into shards, read shard by shard."""

import copy
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.corpus.base import BAD, KEYS, MISFITS, Format, Shard, Source, SourceIndex, UnreadableError
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.hive import fill_from_partition, partition_values
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.corpus.types.keys import KEY_TYPES, is_key_type
from barycenter.infra.corpus.types.values import common_type, null_as_string
from barycenter.infra.deadline import check_deadline
from barycenter.infra.job.models import CorpusJob

_JOB_KEY = "corpus.path"
_SAMPLE_ROWS = 10_000
_THREADS = 8


class Corpus:
    """The rows of a corpus. Picklable; a pickled copy, for workers, can read shards but has no list of sources.

    Attributes:
        root: Folder that sources and picture paths are relative to.
        key: The key column, or None.
        sources: Every file in the order of its relative path; empty in a pickled copy.
        columns: Type of every column, the same for all sources.
        rows_per_shard: Rows in a shard, as in the last call of ``shards``, at first as in the job.
        listing: ``{"files": {"taken": n, "passed_over": {reason: n}}}``, the number of files read and passed over;
            where members of tars are part of no row, ``"members": {"passed_over": n}`` as well.
    """

    def __init__(
        self,
        root: str,
        files: Files,
        corpus_format: Format,
        job: CorpusJob,
        indexes: Mapping[Entry, SourceIndex],
        listing: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = root
        self.listing = dict(listing or {"files": {"taken": len(indexes), "passed_over": {}}})
        if members := sum(index.passed_over for index in indexes.values()):
            self.listing["members"] = {"passed_over": members}
        self.key = job.key
        self.sources = tuple(
            Source(entry.uri, entry.relative, entry.size, entry.stamp, index.rows) for entry, index in indexes.items()
        )
        self._files = files
        self._format = corpus_format
        self._indexes = list(indexes.values())
        self.rows_per_shard = job.rows_per_shard
        self._type_conflicts: dict[str, str] = {}
        self._file_columns = self._unify_types({entry.relative: index.types for entry, index in indexes.items()})
        folders = dict.fromkeys(name for source in self.sources for name in partition_values(source.relative))
        self._folder_columns = [name for name in folders if name not in self._file_columns]
        self._file_and_folder_columns = [name for name in folders if name in self._file_columns]
        self._aliases = {}
        if "file_name" in self._file_columns and "image" not in self._file_columns:
            self._aliases["image"] = "file_name"
        self.columns: dict[str, pa.DataType] = {
            **self._file_columns,
            **dict.fromkeys(self._folder_columns, pa.string()),
            **{alias: self._file_columns[name] for alias, name in self._aliases.items()},
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"sources": (), "_indexes": []}

    def shards(self, rows_per_shard: int) -> list[Shard]:
        """Cuts the sources into shards of ``rows_per_shard`` rows; a source's last shard may be smaller.

        The order is that of the sources and their rows; no shard crosses a source.
        """
        if rows_per_shard != self.rows_per_shard:
            entries = [Entry(source.uri, source.relative, source.size, source.stamp) for source in self.sources]
            self._indexes = list(index_sources(self._files, self._format, entries, rows_per_shard).values())
            self.rows_per_shard = rows_per_shard
        shards: list[Shard] = []
        for source, index in zip(self.sources, self._indexes, strict=True):
            offsets = None if index.shard_offsets is None else index.shard_offsets.tolist()
            for number, start in enumerate(range(0, source.rows, rows_per_shard)):
                stop = min(start + rows_per_shard, source.rows)
                size, stamp = (source.size, source.stamp) if index.shard_stamps is None else index.shard_stamps[number]
                offset, end = (0, stop - start) if offsets is None else offsets[number : number + 2]
                place = (source.relative, source.uri, start, stop, offset, end - offset, size, stamp)
                shards.append(Shard(shard_id(source.relative, size, stamp, start, stop), len(shards), *place))
        return shards

    def raw_rows(self, shard: Shard) -> bytes | None:
        """Reads the bytes that decide what the rows of a shard are; None where its format has no such bytes.

        Raises:
            RunError: The source is gone, or has changed since the shard was planned.
        """
        if not self._format.has_raw_rows(shard):
            return None
        self._check_unchanged(shard)
        return self._format.raw_rows(self._files, shard)

    def rows_digest(self, shard: Shard, columns: Sequence[str], raw: bytes) -> str | None:
        """Digests all that ``read`` and ``keys`` say of a shard, but for the place of its rows in their file.

        Args:
            shard: A whole shard of this corpus.
            columns: The columns that would be read.
            raw: What ``raw_rows`` returned.

        Returns:
            32 hexadecimal digits; None where rows are named by their place in the file.
        """
        if self.key_column is None:
            return None
        names = list(dict.fromkeys([*columns, self.key_column]))
        about = [type(self._format).__name__, self.describe_columns(names), partition_values(shard.source)]
        text = json.dumps([*about, self.key_column, shard.rows]).encode()
        whole = hashlib.blake2b(text, digest_size=16)
        whole.update(b"\0" + raw)
        return whole.hexdigest()

    def read(self, shard: Shard, columns: Sequence[str], raw: bytes | None = None) -> pa.Table:
        """Reads exactly the rows of a shard, in order.

        Args:
            shard: A shard of this corpus, or the beginning of one.
            columns: Wanted columns; the key comes as text whether or not its column is among them.
            raw: What ``raw_rows`` returned, where it was asked.

        Returns:
            A table of ``shard.rows`` rows: the columns in the order asked for, null where a source lacks one, then
            ``__keys__``: the key as text; ``__bad__``: why the row could not be read (its values are then null), or
            null; ``__misfits__``: which of its values do not fit their columns' types (these alone are then null;
            :func:`barycenter.infra.corpus.base.misfits_by_row`), or null.

        Raises:
            RunError: The source is gone, or has changed since the shard was planned.
        """
        if raw is None:
            self._check_unchanged(shard)
        stored = {name: self._aliases.get(name, name) for name in columns}
        types = {name: self._file_columns[name] for name in stored.values() if name in self._file_columns}
        key = self.key_column
        stored_key = self._aliases.get(key, key) if key is not None and key in self.columns else None
        try:
            if raw is None:
                table, problems = self._format.read(self._files, shard, types, stored_key)
            else:
                table, problems = self._format.parse(raw, shard, types, stored_key)
        except UnreadableError as error:
            raise RunError(f"{shard.uri} {error}") from error
        if len(problems.unreadable) != shard.rows:
            raise RunError(
                f"{shard.uri} now holds {len(problems.unreadable)} of the {shard.rows} planned rows; run the job again"
            )
        partitions = partition_values(shard.source)
        arrays = {}
        for name, stored_name in stored.items():
            if stored_name in table.column_names:
                column = table.column(stored_name)
            else:
                kind = self.columns.get(name, pa.null())
                value = partitions.get(name) if name in self._folder_columns else None
                column = pa.repeat(pa.scalar(value, kind), shard.rows)
            if stored_name in self._file_and_folder_columns:
                column = fill_from_partition(column, partitions.get(stored_name), stored_name, problems)
            arrays[name] = column
        keys = table.column(KEYS) if KEYS in table.column_names else pa.nulls(shard.rows, pa.string())
        arrays[KEYS] = keys if key is None else fill_from_partition(keys, partitions.get(key) or None, key, problems)
        return pa.table({**arrays, BAD: pa.array(problems.unreadable, pa.string()), MISFITS: problems.misfit_column()})

    def _check_unchanged(self, shard: Shard) -> None:
        if self._format.size_and_stamp(self._files, shard) != (shard.size, shard.stamp):
            raise RunError(f"{shard.uri} has changed since this run was planned; run the job again")

    def describe_columns(self, columns: Sequence[str]) -> list[list[str]]:
        """Describes how columns are read; part of the identity of what is computed from them.

        Returns:
            For each column its name, where its values come from (a column of the files, the names of their folders, or
            both) and its type. The last two may change when a file is added to the corpus.
        """
        return [[name, self._column_origin(name), str(self.columns.get(name))] for name in columns]

    def _column_origin(self, name: str) -> str:
        """Returns where a column's values come from, e.g. ``column year, else folders``."""
        stored = self._aliases.get(name, name)
        if name in self._folder_columns:
            return "folders"
        return f"column {stored}" + (", else folders" if stored in self._file_and_folder_columns else "")

    def with_key(self, key: str | None) -> "Corpus":
        """Returns a copy of this corpus with another key column."""
        other = copy.copy(self)
        other.key, other.sources, other._indexes = key, self.sources, self._indexes
        return other

    @property
    def key_column(self) -> str | None:
        """The key column of the job, else the format's default; None where rows are named by file and row number."""
        return self.key or self._format.default_key

    def keys(self, shard: Shard, table: pa.Table) -> list[str | None]:
        """Returns the key of each row, from the table that ``read`` returned for the shard.

        That is the key column's value as text, None where it is null, empty, NaN or has no text form. Without a key
        column, and for rows that could not be read, it is ``<source>#<row number>``, counted from 0.
        """
        keys: list[str | None] = table.column(KEYS).to_pylist()
        bad = table.column(BAD).to_pylist()
        named = self.key_column is not None
        return [
            keys[row]
            if named and (keys[row] is not None or bad[row] is None)
            else f"{shard.source}#{shard.start + row}"
            for row in range(shard.rows)
        ]

    def check_columns(self, columns: Mapping[str, str | Sequence[str]]) -> None:
        """Checks that columns exist, that each has one type, and that keys of the key column's type have a text form.

        ``columns`` is {key in the job file: column name or names}.

        Raises:
            JobError: On the first job key whose column is wrong; names the columns with similar names.
        """
        for key, names in columns.items():
            for name in [names] if isinstance(names, str) else names:
                if name in self._type_conflicts:
                    raise JobError(key, self._type_conflicts[name])
                if name not in self.columns:
                    raise JobError(key, self._missing_column_message(name))
                if name == self.key_column and key.endswith("corpus.key") and not is_key_type(self.columns[name]):
                    raise JobError(
                        key, f"{name!r} is {self.columns[name]}, which cannot be a key; keys are {KEY_TYPES}"
                    )

    def _missing_column_message(self, name: str) -> str:
        known = list(self.columns)
        first = self.sources[0].relative if self.sources else self.root
        where = first if len(self.sources) < 2 else f"{first} or the {len(self.sources) - 1} other sources"
        dotted = [column for column in known if column.endswith(f".{name}")]
        if dotted:
            return (
                f"no column {name!r} in {where}; did you mean {' or '.join(map(repr, dotted[:3]))}? "
                "(a member's name is cut at its first dot: what follows is the column)"
            )
        mark = next((mark for mark in ";\t|," if len(known) == 1 and name in known[0].split(mark)), None)
        if mark is not None:
            return (
                f"no column {name!r} in {where}, whose fields are separated by {mark!r}; "
                "separate them by a comma (.csv) or a tab (.tsv)"
            )
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if near:
            return f"no column {name!r} in {where}; did you mean {' or '.join(map(repr, near))}?"
        shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
        return f"no column {name!r} in {where}; it has {shown or 'no columns'}"

    def _unify_types(self, seen: Mapping[str, Mapping[str, pa.DataType]]) -> dict[str, pa.DataType]:
        """Returns one type for each column, from the types by file; types without a common one become conflicts."""
        types: dict[str, pa.DataType] = {}
        where: dict[str, str] = {}
        distinct: dict[tuple[tuple[str, pa.DataType], ...], str] = {}
        for relative, kinds in seen.items():
            distinct.setdefault(tuple(kinds.items()), relative)
        for items, relative in distinct.items():
            for name, kind in items:
                known = types.setdefault(name, kind)
                where.setdefault(name, relative)
                if known == kind:
                    continue
                both = _common_declared_type(known, kind) if self._format.declares_types else common_type(known, kind)
                if both is None:
                    conflict = f"column {name!r} is {known} in {where[name]} and {kind} in {relative}; give it one type"
                    self._type_conflicts.setdefault(name, conflict)
                else:
                    types[name] = both
        return {name: null_as_string(kind) for name, kind in types.items()}


def shard_id(relative: str, size: int, stamp: str, start: int, stop: int) -> str:
    """Hashes a source's path, size, stamp and a row range to a shard's id: 24 hexadecimal digits."""
    text = f"{relative}\0{size}\0{stamp}\0{start}\0{stop}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def index_sources(
    files: Files, corpus_format: Format, entries: Sequence[Entry], rows_per_shard: int
) -> dict[Entry, SourceIndex]:
    """Indexes the sources in parallel threads; raises ``JobError`` for those that cannot be read."""
    sample_rows = max(20, _SAMPLE_ROWS // max(1, len(entries)))

    def index_source(entry: Entry) -> SourceIndex | str:
        try:
            return corpus_format.index_source(files, entry, rows_per_shard, sample_rows)
        except UnreadableError as error:
            return f"{entry.relative} {error}"
        except OSError as error:
            return f"{entry.relative} cannot be read ({error.strerror or error}); check who may read it"

    with ThreadPoolExecutor(min(_THREADS, max(1, len(entries)))) as pool:
        indexes = []
        for index in pool.map(index_source, entries):
            check_deadline()
            indexes.append(index)
    wrong = [index for index in indexes if isinstance(index, str)]
    if wrong:
        others = f" (and {len(wrong) - 1} more such files)" if len(wrong) > 1 else ""
        raise JobError(_JOB_KEY, wrong[0] + others)
    return {entry: index for entry, index in zip(entries, indexes, strict=True) if isinstance(index, SourceIndex)}


def _common_declared_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Returns the type that pyarrow promotes both types to; None where there is none, as for text and a number."""
    binary = [pa.types.is_binary(kind) for kind in (a, b)]
    if any(binary) and not all(binary) and not any(pa.types.is_null(kind) for kind in (a, b)):
        return None
    schemas = [pa.schema([("", kind)]) for kind in (a, b)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None
