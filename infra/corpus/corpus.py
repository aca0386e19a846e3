"""Opening a corpus, cutting it into shards and reading them."""

import copy
import difflib
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.corpus.base import BAD, KEYS, MISFITS, Format, Peek, Shard, Source, UnreadableError, shard_id
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.detection import Chosen, choose_format
from barycenter.infra.corpus.formats.folder import is_picture
from barycenter.infra.corpus.hive import filled, folder_values
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.corpus.types.keys import KEY_TYPES, is_key_type
from barycenter.infra.corpus.types.values import joined, settled
from barycenter.infra.job.models import CorpusJob, LimitsJob

_KEY = "corpus.path"
_SAMPLE = 10_000
_HEAD = 20
_FEW = 10
_BETWEEN = re.compile(r"[\s\"',;|\\]+")
_THREADS = 8


class Corpus:
    """The rows of a corpus; picklable, and light when pickled: workers read shards but carry no list of sources.

    Attributes:
        root: Folder that sources and picture paths are relative to.
        key: The key column, or None.
        sources: Every file in the order of its relative path; empty in a pickled copy.
        columns: Type of every column, the same for all sources.
        listing: ``{"files": {"taken": n, "passed_over": {reason: n}}}``: every file that was seen; where members of
            tars are part of no row, ``"members": {"passed_over": n}`` as well.
    """

    def __init__(
        self,
        root: str,
        files: Files,
        form: Format,
        job: CorpusJob,
        peeks: Mapping[Entry, Peek],
        listing: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = root
        self.listing = dict(listing or {"files": {"taken": len(peeks), "passed_over": {}}})
        if members := sum(peek.passed_over for peek in peeks.values()):
            self.listing["members"] = {"passed_over": members}
        self.key = job.key
        self.sources = tuple(
            Source(entry.uri, entry.relative, entry.size, entry.stamp, peek.rows) for entry, peek in peeks.items()
        )
        self._files = files
        self._format = form
        self._peeks = list(peeks.values())
        self._stride = job.rows_per_shard
        self._clashes: dict[str, str] = {}
        self._file_columns = self._unified({entry.relative: peek.types for entry, peek in peeks.items()})
        folders = dict.fromkeys(name for source in self.sources for name in folder_values(source.relative))
        self._folder_columns = [name for name in folders if name not in self._file_columns]
        self._in_both = [name for name in folders if name in self._file_columns]
        self._aliases = {}
        if "file_name" in self._file_columns and "image" not in self._file_columns:
            self._aliases["image"] = "file_name"
        self.columns: dict[str, pa.DataType] = {
            **self._file_columns,
            **dict.fromkeys(self._folder_columns, pa.string()),
            **{alias: self._file_columns[name] for alias, name in self._aliases.items()},
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"sources": (), "_peeks": []}

    def shards(self, rows_per_shard: int) -> list[Shard]:
        """Cuts the sources into shards of ``rows_per_shard`` rows; a source's last shard may be smaller.

        The order is that of the sources and their rows; no shard crosses a source.
        """
        if rows_per_shard != self._stride:
            entries = [Entry(source.uri, source.relative, source.size, source.stamp) for source in self.sources]
            self._peeks = list(_peeked(self._files, self._format, entries, rows_per_shard).values())
            self._stride = rows_per_shard
        shards: list[Shard] = []
        for source, peek in zip(self.sources, self._peeks, strict=True):
            marks = None if peek.marks is None else peek.marks.tolist()
            for number, start in enumerate(range(0, source.rows, rows_per_shard)):
                stop = min(start + rows_per_shard, source.rows)
                size, stamp = (source.size, source.stamp) if peek.stamps is None else peek.stamps[number]
                offset, length = (0, stop - start) if marks is None else (marks[number], marks[number + 1])
                shards.append(
                    Shard(
                        id=shard_id(source.relative, size, stamp, start, stop),
                        index=len(shards),
                        source=source.relative,
                        uri=source.uri,
                        start=start,
                        stop=stop,
                        offset=offset,
                        length=length if marks is None else length - offset,
                        size=size,
                        stamp=stamp,
                    )
                )
        return shards

    def read(self, shard: Shard, columns: Sequence[str]) -> pa.Table:
        """Reads exactly the rows of a shard, in order.

        Args:
            shard: A shard of this corpus, or the beginning of one.
            columns: Wanted columns; the key comes as text whether or not its column is among them.

        Returns:
            A table of ``shard.rows`` rows: the columns in the order asked for, null where a source lacks one, then
            ``__keys__``: the key as text; ``__bad__``: why the row could not be read (its values are then null), or
            null; ``__misfits__``: which of its values do not fit their columns' types (these alone are then null;
            :func:`barycenter.infra.corpus.base.misfits_of`), or null.

        Raises:
            RunError: The source is gone, or has changed since the shard was planned.
        """
        if self._format.state(self._files, shard) != (shard.size, shard.stamp):
            raise RunError(f"{shard.uri} has changed since this run was planned; run the job again")
        wanted = list(dict.fromkeys(columns))
        stored = [self._aliases.get(name, name) for name in wanted]
        types = {name: self._file_columns[name] for name in stored if name in self._file_columns}
        key = self.key_column
        stored_key = self._aliases.get(key, key) if key is not None and key in self.columns else None
        try:
            table, problems = self._format.read(self._files, shard, types, stored_key)
        except UnreadableError as error:
            raise RunError(f"{shard.uri} {error}") from error
        if len(problems.rows) != shard.rows:
            raise RunError(
                f"{shard.uri} holds {len(problems.rows)} of the {shard.rows} rows planned; run the job again"
            )
        partitions = folder_values(shard.source)
        arrays = {}
        for name, source_name in zip(wanted, stored, strict=True):
            if source_name in table.column_names:
                column = table.column(source_name)
            else:
                kind = self.columns.get(name, pa.null())
                value = partitions.get(name) if name in self._folder_columns else None
                column = pa.repeat(pa.scalar(value, kind), shard.rows)
            in_both = source_name in self._in_both
            arrays[name] = filled(column, partitions.get(source_name), source_name, problems) if in_both else column
        keys = table.column(KEYS) if KEYS in table.column_names else pa.nulls(shard.rows, pa.string())
        arrays[KEYS] = keys if key is None else filled(keys, partitions.get(key) or None, key, problems)
        return pa.table({**arrays, BAD: pa.array(problems.rows, pa.string()), MISFITS: problems.misfits()})

    def reading(self, columns: Sequence[str]) -> list[list[str]]:
        """How columns are read, for the identity of what is made of them.

        Returns:
            For each column its name, where its values stand (a column of the files, their folders, or both) and the
            type that they are brought to. All three may change for a file when another is added to the corpus.
        """
        return [
            [
                name,
                self._place(name),
                str(self.columns.get(name)),
            ]
            for name in columns
        ]

    def _place(self, name: str) -> str:
        stored = self._aliases.get(name, name)
        if name in self._folder_columns:
            return "folders"
        return f"column {stored}" + (", else folders" if stored in self._in_both else "")

    def keyed(self, key: str | None) -> "Corpus":
        """The same rows under another key column."""
        other = copy.copy(self)
        other.key, other.sources, other._peeks = key, self.sources, self._peeks
        return other

    @property
    def stride(self) -> int:
        """Rows in a shard, as the sources were last looked at."""
        return self._stride

    @property
    def key_column(self) -> str | None:
        """The column that names the rows, given by the job or by the format."""
        return self.key or self._format.default_key

    def keys(self, shard: Shard, table: pa.Table) -> list[str | None]:
        """The key of each row as text.

        Args:
            shard: The shard that ``table`` was read from.
            table: What ``read`` returned.

        Returns:
            The key column's values as text, None where there is none: null, empty, not a number, or no text. Without a
            key column, and for rows that could not be read: ``<source>#<row number>``, counted from 0.
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

    def require(self, columns: Mapping[str, str | Sequence[str]]) -> None:
        """Checks that columns exist and have one type, and the key one that has a text form.

        Args:
            columns: {key in the job file: column name or names}.

        Raises:
            JobError: On the first key whose column does not exist; names the nearest ones.
        """
        for key, names in columns.items():
            for name in [names] if isinstance(names, str) else names:
                if name in self._clashes:
                    raise JobError(key, self._clashes[name])
                if name not in self.columns:
                    raise JobError(key, self._missing(name))
                if name == self.key_column and key.endswith("corpus.key") and not is_key_type(self.columns[name]):
                    raise JobError(key, f"{name!r} is {self.columns[name]}, which names no row; keys are {KEY_TYPES}")

    def _missing(self, name: str) -> str:
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
                f"no column {name!r} in {where}, whose fields are parted by {mark!r}; "
                "part them by a comma (.csv) or a tab (.tsv)"
            )
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if near:
            return f"no column {name!r} in {where}; did you mean {' or '.join(map(repr, near))}?"
        shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
        return f"no column {name!r} in {where}; it has {shown or 'no columns'}"

    def _unified(self, seen: Mapping[str, Mapping[str, pa.DataType]]) -> dict[str, pa.DataType]:
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
                both = _promoted(known, kind) if self._format.strict else joined(known, kind)
                if both is None:
                    clash = f"column {name!r} is {known} in {where[name]} and {kind} in {relative}; give it one type"
                    self._clashes.setdefault(name, clash)
                else:
                    types[name] = both
        return {name: settled(kind) for name, kind in types.items()}


def open_corpus(job: CorpusJob, limits: LimitsJob, storage_options: Mapping[str, Any] | None = None) -> Corpus:
    """Lists a corpus, counts its rows and settles its columns' types.

    Args:
        job: The job file's corpus section, paths absolute.
        limits: What the run puts up with; ``http`` must be on for a corpus behind http(s).
        storage_options: ``endpoint_url`` of an S3-compatible server, if any.

    Raises:
        JobError: On ``corpus.path``: nothing there, no permission, an unknown or mixed format, a damaged file, no rows.
    """
    if job.path.startswith(("http://", "https://")) and not limits.http:
        raise JobError(_KEY, f"{job.path}: set limits.http to true to read over http(s)")
    files = Files(storage_options)
    chosen = choose_format(files.list(job.path), job.path)
    _check_links(chosen, job.path, limits.outside_corpus)
    peeks = _peeked(files, chosen.form, chosen.form.entries(chosen.listing), job.rows_per_shard)
    corpus = Corpus(chosen.listing.root, files, chosen.form, job, peeks, chosen.figures)
    _check_pictures(corpus, chosen, job.path)
    if not any(source.rows for source in corpus.sources):
        raise JobError(_KEY, f"{job.path} holds no rows")
    return corpus


def _check_links(chosen: Chosen, path: str, outside_corpus: bool) -> None:
    """Refuses pictures that are all links to elsewhere: none of them could be read."""
    pictures = [entry for entry in chosen.pictures or chosen.listing.entries if is_picture(entry.relative)]
    out = chosen.listing.leading_out
    if pictures and not outside_corpus and all(entry.relative in out for entry in pictures):
        raise JobError(
            "limits.outside_corpus",
            f"all {len(pictures):,} pictures of {path} are links that lead out of it (such as {pictures[0].relative}); "
            "set it to true to follow them",
        )


def _check_pictures(corpus: "Corpus", chosen: Chosen, path: str) -> None:
    """Refuses a table that strayed among pictures: it would become the corpus in their place.

    A few pictures beside a table of ten times as many rows (a logo, a plot) are no corpus; they are counted only.
    """
    if not chosen.pictures or all(entry.relative.split("/")[-1].startswith("metadata.") for entry in corpus.sources):
        return
    if sum(source.rows for source in corpus.sources) > _FEW * len(chosen.pictures):
        return
    names = {entry.relative.rpartition("/")[2] for entry in chosen.pictures}
    shards = corpus.shards(corpus.stride)
    for source in corpus.sources:
        shard = next((shard for shard in shards if shard.source == source.relative), None)
        if shard is not None and _mentions(corpus, shard, names):
            return
    table = corpus.sources[0].relative
    raise JobError(
        _KEY,
        f"{path}: holds {len(chosen.pictures):,} pictures and {len(corpus.sources):,} table(s) ({table}) whose first "
        f"rows name none of them; for the table give its own path ({path.rstrip('/')}/{table}), for the pictures move "
        "it out of the folder",
    )


def _mentions(corpus: "Corpus", shard: Shard, names: Container[str]) -> bool:
    """Whether one of the first rows of a shard names one of the pictures."""
    head = replace(shard, stop=min(shard.stop, shard.start + _HEAD))
    table = corpus.read(head, list(corpus.columns))
    texts = (text for row in table.to_pylist() for value in row.values() for text in _texts(value))
    return any(part.rpartition("/")[2] in names for text in texts for part in (text, *_BETWEEN.split(text)))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def _peeked(files: Files, form: Format, entries: Sequence[Entry], stride: int) -> dict[Entry, Peek]:
    sample = max(20, _SAMPLE // max(1, len(entries)))

    def peek(entry: Entry) -> Peek | str:
        try:
            return form.peek(files, entry, stride, sample)
        except UnreadableError as error:
            return f"{entry.relative} {error}"
        except OSError as error:
            return f"{entry.relative} cannot be read ({error.strerror or error})"

    with ThreadPoolExecutor(min(_THREADS, max(1, len(entries)))) as pool:
        peeks = list(pool.map(peek, entries))
    wrong = [peek for peek in peeks if isinstance(peek, str)]
    if wrong:
        others = f" (and {len(wrong) - 1} more such files)" if len(wrong) > 1 else ""
        raise JobError(_KEY, wrong[0] + others)
    return {entry: peek for entry, peek in zip(entries, peeks, strict=True) if isinstance(peek, Peek)}


def _promoted(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The declared type that holds both, or None where one is text and the other a number, and so on."""
    binary = [pa.types.is_binary(kind) for kind in (a, b)]
    if any(binary) and not all(binary) and not any(pa.types.is_null(kind) for kind in (a, b)):
        return None
    schemas = [pa.schema([("", kind)]) for kind in (a, b)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None
