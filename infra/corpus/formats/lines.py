"""JSON Lines, CSV and TSV: one pass finds the byte offset of each shard, then shards are read by seeking."""

import csv
import json
import math
import re
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus.base import Format, ParsedRecord, Problems, Shard, SourceIndex, Types, UnreadableError
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.records import Splitter, csv_splitter, cut_bytes, cut_stream, split_lines
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.corpus.types.rows import records_to_table
from barycenter.infra.corpus.types.values import infer_column_types

csv.field_size_limit(1 << 30)

_CHUNK_BYTES = 8 << 20
_SAMPLE_CHUNK_BYTES = 1 << 20
_LATER_RECORDS = 64
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_BOM = b"\xef\xbb\xbf"


class _Text(Format):
    """Rows that are cut from text; ``parse`` is the format's own."""

    def has_raw_rows(self, shard: Shard) -> bool:
        """Not of a compressed file, which is read but once."""
        return _compression_of(shard.uri) is None

    def raw_rows(self, files: Files, shard: Shard) -> bytes:
        """Returns the text of the shard's rows."""
        return _shard_bytes(files, shard)

    def read(self, files: Files, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Reads the shard's bytes and parses its rows."""
        return self.parse(self.raw_rows(files, shard), shard, columns, key)

    def _chunks(self, files: Files, uri: str) -> Iterator[bytes]:
        """Yields the bytes of a file to index, in small chunks where its first rows are enough."""
        return _read_chunks(files, uri, _CHUNK_BYTES if self.most_rows is None else _SAMPLE_CHUNK_BYTES)


class JsonLines(_Text):
    """One JSON object a line; .jsonl, .jsonl.gz, .jsonl.zst.

    A column's type comes from the first rows and some later ones: whole numbers, numbers, true/false, text, lists
    of these; objects and anything mixed are text. A later value that does not fit is a misfit. Compressed files can
    only be read from their beginning: split large ones into several files.
    """

    def index_source(self, files: Files, entry: Entry, rows_per_shard: int, sample_rows: int) -> SourceIndex:
        """Counts lines; infers types from the first ``sample_rows`` and from some lines of every 8 MB after them."""
        index = _RecordIndexer(rows_per_shard, sample_rows, most_rows=self.most_rows)
        index.scan(self._chunks(files, entry.uri), split_lines)
        parsed = [_parse_json(record) for record in index.first]
        if parsed and parsed[0][1] is not None and index.first[0].lstrip().startswith(b"["):
            raise UnreadableError("is a JSON array; a .jsonl file holds one JSON object on each line")
        good = [row for row, problem in parsed if problem is None]
        later = [row for row, problem in map(_parse_json, index.later) if problem is None]
        if parsed and not good:
            raise UnreadableError(f"row 1 is not a JSON object ({parsed[0][1]}); a .jsonl file holds one on each line")
        return SourceIndex(index.rows, infer_column_types(good + later), index.shard_offsets())

    def parse(self, raw: bytes, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Parses lines."""
        lines = cut_bytes(raw, split_lines)[: shard.rows]
        return records_to_table([_parse_json(line) for line in lines], columns, key)


class Delimited(_Text):
    """CSV or TSV with a header row; quoted fields may hold delimiters, doubled quotes and line ends.

    Every column is text, numbers too: a file says nothing about what its columns mean, and "007" is not 7. A row with
    more or fewer fields than the header is unreadable.
    """

    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter

    def index_source(self, files: Files, entry: Entry, rows_per_shard: int, sample_rows: int) -> SourceIndex:
        """Counts the rows below the header."""
        index = _RecordIndexer(rows_per_shard, sample_rows, header=True, most_rows=self.most_rows)
        index.scan(self._chunks(files, entry.uri), csv_splitter(self.delimiter))
        if not index.first:
            return SourceIndex(0, {}, index.shard_offsets())
        return SourceIndex(index.rows, dict.fromkeys(self._header(index.first[0]), pa.string()), index.shard_offsets())

    def raw_rows(self, files: Files, shard: Shard) -> bytes:
        """Returns the header and the text of the shard's rows."""
        header = _header_record(files, shard.uri, shard.stamp, self.delimiter)
        return header + b"\n" + super().raw_rows(files, shard)

    def parse(self, raw: bytes, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Parses rows below their header."""
        first, *rows = cut_bytes(raw, csv_splitter(self.delimiter))[: shard.rows + 1]
        header = self._header(first)
        return records_to_table([self._parse_row(record, header) for record in rows], columns, key)

    def _header(self, record: bytes) -> list[str]:
        """Returns the column names in a header row; raises ``UnreadableError`` where it is wrong."""
        if b"\r" in record.rstrip(b"\r") and b'"' not in record:
            raise UnreadableError("has lines that end in CR alone; save it with LF or CRLF line ends")
        names, problem = self._split_fields(record)
        if problem is not None:
            raise UnreadableError(
                f"has a header row that cannot be read ({problem}); save it as UTF-8 with whole quotes"
            )
        names = [name.strip() for name in names]
        if b"\0" in record:
            raise UnreadableError("holds zero bytes as UTF-16 text does; save it as UTF-8")
        for name in names:
            if names.count(name) > 1:
                raise UnreadableError(f"has a header with two columns {name!r}; rename one")
        return names

    def _parse_row(self, record: bytes, header: Sequence[str]) -> ParsedRecord:
        """Parses one row, to ``{column: text}``; a wrong number of fields makes it unreadable."""
        fields, problem = self._split_fields(record)
        if problem is None and len(fields) != len(header):
            problem = f"{len(fields)} fields where the header has {len(header)}"
        return ({}, problem) if problem is not None else (dict(zip(header, fields, strict=True)), None)

    def _split_fields(self, record: bytes) -> tuple[list[str], str | None]:
        """Returns the fields of one row and why it could not be read (None where it could)."""
        try:
            text = record.decode()
        except UnicodeDecodeError as error:
            return [], f"not UTF-8 text (byte {error.start})"
        try:
            return next(csv.reader([text], delimiter=self.delimiter, strict=True)), None
        except csv.Error as error:
            return [], _csv_problem_in_words(str(error))


def _csv_problem_in_words(error: str) -> str:
    if "unexpected end of data" in error:
        return "a quoted field that does not end"
    if "new-line character" in error:
        return "a carriage return outside quotes; save the file with LF or CRLF line ends"
    if "expected after" in error:
        return "text after the quote that ends a field; a quote within a field is written twice"
    return f"not a row ({error})"


class _RecordIndexer:
    """Counts ``rows`` without the header; keeps the ``first`` records with it, and about 64 of each 8 MB after them.

    It stops after ``most_rows``, where they are given.
    """

    def __init__(
        self, rows_per_shard: int, sample_rows: int, *, header: bool = False, most_rows: int | None = None
    ) -> None:
        self.rows = 0
        self.first: list[bytes] = []
        self.later: list[bytes] = []
        self._rows_per_shard, self._sample_rows, self._header = rows_per_shard, sample_rows, header
        self._most_rows = most_rows
        self._offsets: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        self._end = 0

    def scan(self, chunks: Iterator[bytes], split: Splitter) -> None:
        for offset, buffer, begins, ends in cut_stream(_blank_bom(chunks), split):
            missing = self._sample_rows - len(self.first)
            self.first += [buffer[a:b] for a, b in zip(begins[:missing].tolist(), ends[:missing].tolist(), strict=True)]
            if len(begins) > missing:
                chosen = np.unique(np.linspace(max(0, missing), len(begins) - 1, _LATER_RECORDS).astype(np.int64))
                self.later += [buffer[begins[row] : ends[row]] for row in chosen]
            if self._header and len(begins):
                begins, ends, self._header = begins[1:], ends[1:], False
            self._end = offset + len(buffer)
            left = len(begins) if self._most_rows is None else self._most_rows - self.rows
            if len(begins) > left:
                begins, self._end = begins[:left], offset + int(ends[left - 1])
            self._offsets.append(begins[(-self.rows) % self._rows_per_shard :: self._rows_per_shard] + offset)
            self.rows += len(begins)
            if self.rows == self._most_rows:
                return

    def shard_offsets(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Returns the byte offset of each shard's first record and, last, of the end of the file."""
        return np.concatenate([*self._offsets, np.array([self._end], np.int64)])


def _blank_bom(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Replaces a UTF-8 byte order mark by line ends, which keeps all offsets; raises for UTF-16."""
    first = next(chunks, b"")
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("is UTF-16 text; save it as UTF-8")
    yield b"\r\n\n" + first[3:] if first.startswith(_BOM) else first
    yield from chunks


@lru_cache(maxsize=64)
def _header_record(files: Files, uri: str, stamp: str, delimiter: str) -> bytes:
    """Reads the header row of a file; cached by uri, stamp and delimiter."""
    del stamp
    for _, buffer, begins, ends in cut_stream(_blank_bom(_read_chunks(files, uri, 1 << 16)), csv_splitter(delimiter)):
        if len(begins):
            return buffer[begins[0] : ends[0]]
    raise RunError(f"{uri} changed while the run was reading it: its header row is gone; run the job again")


def _parse_float(text: str) -> float | str:
    """Parses a number; text beyond the range of floats is returned as it is."""
    number = float(text)
    return text if math.isinf(number) else number


def _object_of_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A hook for ``json.loads``; raises ``ValueError`` for a name that is given twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate name {twice!r} in one object")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object_of_unique_names)
_DECODER_OF_LARGE_NUMBERS = json.JSONDecoder(parse_float=_parse_float, object_pairs_hook=_object_of_unique_names)
_MAY_BE_LARGE = re.compile(rb"[eE]\+?\d\d|\d{300}")


def _parse_json(line: bytes) -> ParsedRecord:
    decoder = _DECODER_OF_LARGE_NUMBERS if _MAY_BE_LARGE.search(line) else _DECODER
    try:
        row = decoder.decode(line.decode())
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 text (byte {error.start})"
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON ({error})"
    return (row, None) if isinstance(row, dict) else ({}, f"not a JSON object but {str(line[:30], 'utf-8', 'replace')}")


def _compression_of(uri: str) -> str | None:
    return next((name for suffix, name in _COMPRESSIONS.items() if uri.lower().endswith(suffix)), None)


def _read_chunks(files: Files, uri: str, size: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """Yields a file's bytes in chunks, decompressed."""
    compression = _compression_of(uri)
    if compression is None:
        yield from files.chunks(uri, size)
        return
    with _open_decompressed(files, uri) as stream:
        try:
            while chunk := stream.read(size):
                yield chunk
        except OSError as error:
            raise UnreadableError(f"cannot be decompressed ({error}); compress it again") from error


def _open_decompressed(files: Files, uri: str) -> pa.NativeFile:
    return pa.CompressedInputStream(pa.PythonFile(files.open(uri), mode="r"), _compression_of(uri))


class _CompressedPosition(threading.local):
    """The compressed stream last read in this thread and its position, where the next shard continues."""

    key: tuple[str, str] | None = None
    position: int = 0
    stream: Any = None


_last_read = _CompressedPosition()


def _shard_bytes(files: Files, shard: Shard) -> bytes:
    """Reads the bytes of a shard, decompressed; b"" where the file ends before it."""
    if _compression_of(shard.uri) is None:
        return files.read(shard.uri, shard.offset, shard.length)
    if _last_read.key != (shard.uri, shard.stamp) or _last_read.position > shard.offset:
        if _last_read.stream is not None:
            _last_read.stream.close()
        _last_read.stream, _last_read.position = _open_decompressed(files, shard.uri), 0
        _last_read.key = (shard.uri, shard.stamp)
    stream = _last_read.stream
    try:
        while _last_read.position < shard.offset:
            skipped = stream.read(min(_CHUNK_BYTES, shard.offset - _last_read.position))
            if not skipped:
                return b""
            _last_read.position += len(skipped)
        content: bytes = stream.read(shard.length)
    except OSError as error:
        _last_read.key = None
        raise RunError(f"{shard.uri} cannot be decompressed ({error}); compress it again and run again") from error
    _last_read.position += len(content)
    return content
